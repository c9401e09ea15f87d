// Package pod is the launch spec: everything that the host hands a guest and
// that may influence its workload. HOST_DATA of the attestation report is the
// spec's digest. The format is documented in docs/spec/launch-spec.md.
//
// The package checks the spec's form. It does not check that the image digest
// belongs to the root hash; a verifier that cares rebuilds the image.
package pod

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/internal/lazyre"
	"github.com/kraudcloud/kattest/internal/strictjson"
)

// MediaType names this version of the format.
const MediaType = "application/vnd.kattest.launch-spec.v1+json"

// MaxSize is the largest canonical spec, in bytes.
const MaxSize = 1 << 20

// domain separates the digest of a spec from any other SHA-256.
const domain = "kattest launch spec v1\x00"

// Hash is a SHA-256, written as 64 hexadecimal digits.
type Hash [sha256.Size]byte

// String returns h in lower-case hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns h in lower-case hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("%q is not a SHA-256 of %d hexadecimal digits", text, 2*len(h))
	}
	copy(h[:], b)
	return nil
}

// Spec is a launch spec.
type Spec struct {
	MediaType string     `json:"mediaType"`
	Image     Image      `json:"image"`
	Process   Process    `json:"process"`
	Network   Network    `json:"network"`
	Ports     []Port     `json:"ports,omitempty"`
	Mounts    []Mount    `json:"mounts,omitempty"`
	Scratch   *Scratch   `json:"scratch,omitempty"`
	Resources *Resources `json:"resources,omitempty"`
	Access    []Access   `json:"access,omitempty"`
	Secrets   *Secrets   `json:"secrets,omitempty"`
	Console   Console    `json:"console"`

	Healthcheck *Healthcheck `json:"healthcheck,omitempty"`
	Restart     *Restart     `json:"restart,omitempty"`
}

// Image names the root file system: an EROFS image with a dm-verity tree behind it.
type Image struct {
	// Reference is the name by which the image was asked for. It proves nothing.
	Reference string `json:"reference,omitempty"`
	// Digest is the OCI image manifest's digest, "sha256:…".
	Digest string `json:"digest"`
	Verity Verity `json:"verity"`
	// ReadOnly makes the root file system one that the workload cannot write to.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Volumes are the folders that the image declares to be volumes: mounts of
	// their own, with the image's content, on the writable layer.
	Volumes []string `json:"volumes,omitempty"`
}

// Verity holds the parameters of the dm-verity target that the guest sets up:
// hash type 1, SHA-256, blocks of 4096 bytes, and the tree without a superblock
// right behind the data, at DataBlocks × 4096.
type Verity struct {
	RootHash   Hash   `json:"rootHash"`
	Salt       Hash   `json:"salt"`
	DataBlocks uint64 `json:"dataBlocks"` // blocks of 4096 bytes
}

// Process is the container's process.
type Process struct {
	Args         []string `json:"args"`       // the whole argv: entrypoint and command
	Env          []string `json:"env"`        // NAME=value, in order
	WorkingDir   string   `json:"workingDir"` // absolute
	User         string   `json:"user"`       // user[:group], names or numbers, as in OCI's config.User; empty is root
	Capabilities []string `json:"capabilities"`
	StopSignal   string   `json:"stopSignal"` // SIGTERM and so on

	Groups          []string `json:"groups,omitempty"`          // supplementary ones, names or numbers, beside those of the user
	NoNewPrivileges bool     `json:"noNewPrivileges,omitempty"` // set-uid programs and file capabilities give nothing
	Seccomp         Seccomp  `json:"seccomp,omitempty"`
	Rlimits         []Rlimit `json:"rlimits,omitempty"`
	StopTimeout     uint32   `json:"stopTimeout,omitempty"` // seconds from the stop signal to SIGKILL; 0 is 10
	Terminal        bool     `json:"terminal,omitempty"`    // standard streams are a terminal
	Stdin           bool     `json:"stdin,omitempty"`       // standard input waits for who attaches to it
	Init            bool     `json:"init,omitempty"`        // a reaper is process number 1, and the workload its child
}

// Network is the guest's one interface, eth0.
type Network struct {
	Hostname    string         `json:"hostname"`
	Addresses   []netip.Prefix `json:"addresses,omitempty"`
	Gateways    []netip.Addr   `json:"gateways,omitempty"`
	Nameservers []netip.Addr   `json:"nameservers,omitempty"`
	Search      []string       `json:"search,omitempty"`  // domains, for /etc/resolv.conf
	Options     []string       `json:"options,omitempty"` // of the resolver, for /etc/resolv.conf
	Hosts       []Host         `json:"hosts,omitempty"`   // for /etc/hosts
}

// Port is a port on which the workload serves.
type Port struct {
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"` // tcp or udp
}

// Console says what of the workload's output the host may read.
type Console string

// The values of Console.
const (
	ConsoleNone   Console = "none"   // drained inside the guest
	ConsoleOutput Console = "output" // standard output and error go to the host
)

// Capabilities are the names a spec may give, in the order of their numbers.
// Source: Linux 6.12, include/uapi/linux/capability.h.
var Capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
	"CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// DefaultCapabilities is the set that docker gives a container, without
// CAP_MKNOD: docker also fences device nodes with a cgroup, this guest does not.
// Source: github.com/moby/moby, daemon/pkg/oci/caps/defaults.go.
var DefaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
}

// forbidden are the capabilities with which a workload could leave its
// container, and then read the agent's keys or ask for reports in its name
// (CAP_MKNOD makes a node of /dev/sev-guest).
var forbidden = []string{
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN",
	"CAP_SYS_BOOT", "CAP_MKNOD", "CAP_DAC_READ_SEARCH", "CAP_BPF", "CAP_PERFMON", "CAP_CHECKPOINT_RESTORE",
	"CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_SYSLOG",
}

// Parse reads a spec that must stand in its canonical form, and checks it.
func Parse(data []byte) (Spec, error) {
	spec, err := ParseText(data)
	if err != nil {
		return Spec{}, err
	}
	canonical, err := spec.Canonical()
	if err != nil {
		return Spec{}, err
	}
	if !bytes.Equal(data, canonical) {
		return Spec{}, fmt.Errorf("launch spec: offset %d: not in canonical form (RFC 8785)", firstDifference(data, canonical))
	}
	return spec, nil
}

// ParseText reads a spec in any JSON form, as a person may have written it, and
// checks it. Unknown and duplicate members are errors.
func ParseText(data []byte) (Spec, error) {
	if len(data) > MaxSize {
		return Spec{}, fmt.Errorf("launch spec: %d bytes, more than %d", len(data), MaxSize)
	}
	var spec Spec
	if err := strictjson.Decode(data, &spec); err != nil {
		return Spec{}, fmt.Errorf("launch spec: %w", err)
	}
	if err := spec.Check(); err != nil {
		return Spec{}, fmt.Errorf("launch spec: %w", err)
	}
	return spec, nil
}

// Canonical returns the spec's canonical form (RFC 8785).
func (s Spec) Canonical() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("launch spec: %w", err)
	}
	b, err := strictjson.Canonical(s)
	if err != nil {
		return nil, fmt.Errorf("launch spec: %w", err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("launch spec: %d bytes, more than %d", len(b), MaxSize)
	}
	return b, nil
}

// HostData returns the digest that the report's HOST_DATA must hold: SHA-256
// over "kattest launch spec v1", a NUL, and the canonical form.
func (s Spec) HostData() (Hash, error) {
	b, err := s.Canonical()
	if err != nil {
		return Hash{}, err
	}
	return Digest(b), nil
}

// Digest returns what HOST_DATA must hold for a spec of which only the bytes
// are known, before anyone has judged whether they are a spec.
func Digest(data []byte) Hash {
	return sha256.Sum256(append([]byte(domain), data...))
}

var (
	digestRE   = lazyre.New(`^sha256:[0-9a-f]{64}$`)
	hostnameRE = lazyre.New(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)             // of at most 63
	labelRE    = lazyre.New(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?$`) // of at most 63
	optionRE   = lazyre.New(`^[a-z][a-z0-9-]*(:[0-9]+)?$`)
	signalRE   = lazyre.New(`^SIG[A-Z0-9+]{1,12}$`)
)

// Check reports everything that is wrong with the spec, joined.
func (s Spec) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if s.MediaType != MediaType {
		bad("mediaType: %q, want %q", s.MediaType, MediaType)
	}
	if !digestRE().MatchString(s.Image.Digest) {
		bad("image.digest: %q is not sha256: and 64 hexadecimal digits", s.Image.Digest)
	}
	if s.Image.Verity.RootHash == (Hash{}) {
		bad("image.verity.rootHash: missing")
	}
	// dm-verity's tree of 4096-byte blocks; 2^40 blocks are 4 PiB.
	if n := s.Image.Verity.DataBlocks; n == 0 || n > 1<<40 {
		bad("image.verity.dataBlocks: %d is not between 1 and 2^40", n)
	}
	p := s.Process
	if len(p.Args) == 0 || p.Args[0] == "" {
		bad("process.args: empty")
	}
	// null would be a second way to say "empty", with another digest.
	if p.Env == nil {
		bad("process.env: missing or null")
	}
	if p.Capabilities == nil {
		bad("process.capabilities: missing or null")
	}
	for i, arg := range p.Args {
		if strings.ContainsRune(arg, 0) {
			bad("process.args[%d]: holds a NUL", i)
		}
	}
	names := map[string]bool{}
	for i, entry := range p.Env {
		name, _, ok := strings.Cut(entry, "=")
		if !ok || name == "" || strings.ContainsRune(entry, 0) {
			bad("process.env[%d]: %q is not NAME=value", i, entry)
		} else if names[name] {
			bad("process.env[%d]: %s stands twice", i, name)
		}
		names[name] = true
	}
	if !path.IsAbs(p.WorkingDir) || path.Clean(p.WorkingDir) != p.WorkingDir || strings.ContainsRune(p.WorkingDir, 0) {
		bad("process.workingDir: %q is not a clean absolute path", p.WorkingDir)
	}
	if strings.ContainsAny(p.User, "\x00\n") {
		bad("process.user: %q holds a NUL or a line feed", p.User)
	}
	for i, c := range p.Capabilities {
		switch {
		case !slices.Contains(Capabilities, c):
			bad("process.capabilities[%d]: unknown capability %q", i, c)
		case slices.Contains(forbidden, c):
			bad("process.capabilities[%d]: %s would let the workload reach the agent", i, c)
		case slices.Contains(p.Capabilities[:i], c):
			bad("process.capabilities[%d]: %s stands twice", i, c)
		}
	}
	if !signalRE().MatchString(p.StopSignal) {
		bad("process.stopSignal: %q is not a signal's name, such as SIGTERM", p.StopSignal)
	}
	if len(s.Network.Hostname) > 63 || !hostnameRE().MatchString(s.Network.Hostname) {
		bad("network.hostname: %q is not a host name of one label", s.Network.Hostname)
	}
	for i, a := range s.Network.Addresses {
		if !a.IsValid() || a.Addr().Zone() != "" {
			bad("network.addresses[%d]: not an address with a prefix length", i)
		}
	}
	for i, a := range s.Network.Gateways {
		if !a.IsValid() || a.Zone() != "" {
			bad("network.gateways[%d]: not an address", i)
		}
	}
	for i, a := range s.Network.Nameservers {
		if !a.IsValid() || a.Zone() != "" {
			bad("network.nameservers[%d]: not an address", i)
		}
	}
	for i, port := range s.Ports {
		if port.Port == 0 || port.Protocol != "tcp" && port.Protocol != "udp" {
			bad("ports[%d]: %d/%s is not a port of tcp or udp", i, port.Port, port.Protocol)
		}
		if slices.Contains(s.Ports[:i], port) {
			bad("ports[%d]: %d/%s stands twice", i, port.Port, port.Protocol)
		}
	}
	s.checkMounts(bad)
	p.checkLimits(bad)
	s.checkResources(bad)
	s.checkSupervision(bad)
	s.checkAccess(bad)
	s.checkSecrets(bad)
	if s.Console != ConsoleNone && s.Console != ConsoleOutput {
		bad("console: %q is neither %q nor %q", s.Console, ConsoleNone, ConsoleOutput)
	}
	return errors.Join(errs...)
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
