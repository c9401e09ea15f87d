package pod

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Access is what one client may ask of the agent. A client is known by the key with
// which it opens TLS; without an entry it gets evidence and the ports of Spec.Ports,
// and is told of nothing else.
type Access struct {
	Key   Hash        `json:"key"`   // SHA-256 of the DER SubjectPublicKeyInfo
	Allow []Operation `json:"allow"` // at least one, each once
}

// Operation is something that a client may be allowed to ask for.
type Operation string

// The operations, by what docker calls them.
const (
	OpDockerPS      Operation = "docker.ps"
	OpDockerInspect Operation = "docker.inspect"
	OpDockerLogs    Operation = "docker.logs"
	OpDockerExec    Operation = "docker.exec"
	OpDockerAttach  Operation = "docker.attach"
	OpDockerCopy    Operation = "docker.cp"
	OpDockerTop     Operation = "docker.top"
	OpDockerStats   Operation = "docker.stats"
	OpDockerStop    Operation = "docker.stop"
	OpDockerKill    Operation = "docker.kill"
	OpDockerWait    Operation = "docker.wait"
	OpDockerEvents  Operation = "docker.events"
)

// Operations are all of them.
var Operations = []Operation{
	OpDockerPS, OpDockerInspect, OpDockerLogs, OpDockerExec, OpDockerAttach, OpDockerCopy,
	OpDockerTop, OpDockerStats, OpDockerStop, OpDockerKill, OpDockerWait, OpDockerEvents,
}

// Allows says whether the client may ask for it.
func (a Access) Allows(op Operation) bool { return slices.Contains(a.Allow, op) }

// Secrets are what the agent waits for before it starts the workload.
type Secrets struct {
	// Owners are the keys of which one must have signed what is handed over:
	// SHA-256 of the DER SubjectPublicKeyInfo.
	Owners []Hash `json:"owners"`
	// Expects are the secrets, all of which must come, and no other.
	Expects []Secret `json:"expects"`
}

// Secret is one that the workload finds, in a file or its environment or both, or
// that a mount's key names.
type Secret struct {
	Name string `json:"name"`
	// File is an absolute path in the container, on a tmpfs of its own.
	File string `json:"file,omitempty"`
	Mode string `json:"mode,omitempty"` // of the file: four octal digits; empty is 0444
	UID  uint32 `json:"uid,omitempty"`  // of the file
	GID  uint32 `json:"gid,omitempty"`  // of the file
	Env  string `json:"env,omitempty"`  // name of a variable
}

// Limits of Access and Secrets.
const (
	MaxAccess  = 64
	MaxOwners  = 16
	MaxSecrets = 64
	// MaxSecret is the longest secret, in bytes.
	MaxSecret = 64 << 10
)

func (s Spec) checkAccess(bad func(format string, args ...any)) {
	if s.Access != nil && len(s.Access) == 0 {
		bad("access: empty; it is left out instead")
	}
	if len(s.Access) > MaxAccess {
		bad("access: %d clients, more than %d", len(s.Access), MaxAccess)
	}
	for i, a := range s.Access {
		at := fmt.Sprintf("access[%d]", i)
		if a.Key == (Hash{}) {
			bad("%s.key: missing", at)
		}
		if slices.ContainsFunc(s.Access[:i], func(b Access) bool { return a.Key == b.Key }) {
			bad("%s.key: %s stands twice", at, a.Key)
		}
		if len(a.Allow) == 0 {
			bad("%s.allow: empty", at)
		}
		for j, op := range a.Allow {
			switch {
			case !slices.Contains(Operations, op):
				bad("%s.allow[%d]: unknown operation %q", at, j, op)
			case slices.Contains(a.Allow[:j], op):
				bad("%s.allow[%d]: %s stands twice", at, j, op)
			}
		}
	}
}

func (s Spec) checkSecrets(bad func(format string, args ...any)) {
	keys := map[string]bool{} // of volumes
	for _, m := range s.Volumes() {
		keys[m.Key] = true
	}
	if s.Secrets == nil {
		for _, m := range s.Volumes() {
			bad("secrets: missing: volume %q needs the key %q", m.Name, m.Key)
		}
		return
	}
	owners, expects := s.Secrets.Owners, s.Secrets.Expects
	if n := len(owners); n == 0 || n > MaxOwners {
		bad("secrets.owners: %d keys, want 1 to %d", n, MaxOwners)
	}
	for i, key := range owners {
		if key == (Hash{}) || slices.Contains(owners[:i], key) {
			bad("secrets.owners[%d]: %s is no key, or stands twice", i, key)
		}
	}
	if n := len(expects); n == 0 || n > MaxSecrets {
		bad("secrets.expects: %d secrets, want 1 to %d", n, MaxSecrets)
	}
	for i, secret := range expects {
		at := fmt.Sprintf("secrets.expects[%d]", i)
		secret.check(func(format string, args ...any) { bad(at+"."+format, args...) }, keys)
		for _, earlier := range expects[:i] {
			secret.differs(earlier, func(format string, args ...any) { bad(at+"."+format, args...) })
		}
		delete(keys, secret.Name)
		for _, entry := range s.Process.Env {
			if name, _, _ := strings.Cut(entry, "="); secret.Env != "" && name == secret.Env {
				bad("%s.env: %s is in process.env already", at, secret.Env)
			}
		}
	}
	for _, m := range s.Volumes() {
		if keys[m.Key] {
			bad("secrets.expects: no %q, which is volume %q's key", m.Key, m.Name)
			delete(keys, m.Key)
		}
	}
}

// check checks one secret; volumes are the names of volumes' keys.
func (s Secret) check(bad func(format string, args ...any), volumes map[string]bool) {
	if !secretRE().MatchString(s.Name) {
		bad("name: %q is not 1 to 64 of A-Z, a-z, 0-9 and inner dots, hyphens and underscores", s.Name)
	}
	if s.File == "" && s.Env == "" && !volumes[s.Name] {
		bad("name: %q is for nothing: no file, no variable, no volume's key", s.Name)
	}
	switch {
	case s.File == "" && (s.Mode != "" || s.UID != 0 || s.GID != 0):
		bad("file: missing, but mode, uid or gid are there")
	case s.File != "" && (!cleanPath(s.File) || path.Dir(s.File) == "/" || agents(s.File)):
		bad("file: %q is not a clean absolute path below a folder of the container's", s.File)
	}
	if s.Mode != "" && !modeRE().MatchString(s.Mode) {
		bad("mode: %q is not four octal digits", s.Mode)
	}
	if strings.ContainsAny(s.Env, "=\x00\n") {
		bad("env: %q is not a variable's name", s.Env)
	}
}

// differs reports what two secrets must not have in common.
func (s Secret) differs(other Secret, bad func(format string, args ...any)) {
	if s.Name == other.Name {
		bad("name: %q stands twice", s.Name)
	}
	if s.Env != "" && s.Env == other.Env {
		bad("env: %s stands twice", s.Env)
	}
	if s.File != "" && (s.File == other.File || strings.HasPrefix(s.File, other.File+"/") || strings.HasPrefix(other.File, s.File+"/")) {
		bad("file: %q hides %q", s.File, other.File)
	}
}
