package pod

import (
	"slices"
	"strings"
	"testing"
)

func exampleAccess() []Access {
	return []Access{
		{Key: Hash{1}, Allow: []Operation{OpDockerPS, OpDockerLogs}},
		{Key: Hash{2}, Allow: slices.Clone(Operations)},
	}
}

func exampleSecrets() *Secrets {
	return &Secrets{
		Owners: []Hash{{3}, {4}},
		Expects: []Secret{
			{Name: "root-password", File: "/run/secrets/root", Mode: "0440", UID: 999, GID: 999, Env: "ROOT_PASSWORD"},
			{Name: "api", Env: "API_KEY"},
			{Name: "data.key"},
		},
	}
}

// guarded is a spec with all of it.
func guarded() Spec {
	s := example()
	s.Mounts, s.Access, s.Secrets = exampleMounts()[1:2], exampleAccess(), exampleSecrets()
	return s
}

func TestAccess(t *testing.T) {
	s := guarded()
	got := readBack(t, s)
	if a := got.Access[0]; !a.Allows(OpDockerLogs) || a.Allows(OpDockerExec) {
		t.Errorf("%v", a.Allow)
	}
}

func TestCheckAccess(t *testing.T) {
	for _, tt := range []struct {
		err    string
		change func(*Spec)
	}{
		{"access: empty", func(s *Spec) { s.Access = []Access{} }},
		{"access: 65 clients, more than 64", func(s *Spec) { s.Access = make([]Access, 65) }},
		{"access[0].key: missing", func(s *Spec) { s.Access[0].Key = Hash{} }},
		{"access[1].key: 01", func(s *Spec) { s.Access[1].Key = s.Access[0].Key }},
		{"access[0].allow: empty", func(s *Spec) { s.Access[0].Allow = nil }},
		{`access[0].allow[1]: unknown operation "docker.run"`, func(s *Spec) { s.Access[0].Allow[1] = "docker.run" }},
		{`access[0].allow[1]: unknown operation ""`, func(s *Spec) { s.Access[0].Allow[1] = "" }},
		{"access[0].allow[1]: docker.ps stands twice", func(s *Spec) { s.Access[0].Allow[1] = OpDockerPS }},

		{`secrets: missing: volume "data" needs the key "data.key"`, func(s *Spec) { s.Secrets = nil }},
		{"secrets.owners: 0 keys, want 1 to 16", func(s *Spec) { s.Secrets.Owners = nil }},
		{"secrets.owners: 17 keys", func(s *Spec) { s.Secrets.Owners = make([]Hash, 17) }},
		{"secrets.owners[1]: 03", func(s *Spec) { s.Secrets.Owners[1] = Hash{3} }},
		{"secrets.owners[0]: 00", func(s *Spec) { s.Secrets.Owners[0] = Hash{} }},
		{"secrets.expects: 0 secrets, want 1 to 64", func(s *Spec) { s.Mounts, s.Secrets.Expects = nil, nil }},
		{"secrets.expects: 65 secrets", func(s *Spec) { s.Secrets.Expects = make([]Secret, 65) }},
		{`secrets.expects: no "data.key", which is volume "data"'s key`, func(s *Spec) { s.Secrets.Expects = s.Secrets.Expects[:2] }},
		{`secrets.expects[2].name: "data.key" is for nothing`, func(s *Spec) { s.Mounts = nil }},
		{`secrets.expects[0].name: "../a" is not`, func(s *Spec) { s.Secrets.Expects[0].Name = "../a" }},
		{`secrets.expects[1].name: "root-password" stands twice`, func(s *Spec) { s.Secrets.Expects[1].Name = "root-password" }},
		{"secrets.expects[1].env: ROOT_PASSWORD stands twice", func(s *Spec) { s.Secrets.Expects[1].Env = "ROOT_PASSWORD" }},
		{`secrets.expects[1].env: "A=B" is not`, func(s *Spec) { s.Secrets.Expects[1].Env = "A=B" }},
		{"secrets.expects[1].env: PATH is in process.env already", func(s *Spec) {
			s.Process.Env, s.Secrets.Expects[1].Env = []string{"PATH=/bin"}, "PATH"
		}},
		{"secrets.expects[1].file: missing, but mode, uid or gid are there", func(s *Spec) { s.Secrets.Expects[1].Mode = "0400" }},
		{`secrets.expects[0].mode: "440" is not four octal digits`, func(s *Spec) { s.Secrets.Expects[0].Mode = "440" }},
		{`secrets.expects[0].file: "run/x" is not`, func(s *Spec) { s.Secrets.Expects[0].File = "run/x" }},
		{`secrets.expects[0].file: "/run/../x" is not`, func(s *Spec) { s.Secrets.Expects[0].File = "/run/../x" }},
		{`secrets.expects[0].file: "/x" is not`, func(s *Spec) { s.Secrets.Expects[0].File = "/x" }},
		{`secrets.expects[0].file: "/proc/x" is not`, func(s *Spec) { s.Secrets.Expects[0].File = "/proc/x" }},
		{`secrets.expects[1].file: "/run/secrets/root/x" hides`, func(s *Spec) { s.Secrets.Expects[1].File = "/run/secrets/root/x" }},
	} {
		s := guarded()
		tt.change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("error %v, want %q", err, tt.err)
		}
	}
}
