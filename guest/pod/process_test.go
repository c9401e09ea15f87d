package pod

import (
	"net/netip"
	"strings"
	"testing"
)

// bounded is a spec with all that bounds a process.
func bounded() Spec {
	s := example()
	s.Image.ReadOnly = true
	p := &s.Process
	p.Groups, p.NoNewPrivileges, p.Seccomp, p.StopTimeout = []string{"audio", "7"}, true, SeccompUnconfined, 30
	p.Rlimits = []Rlimit{{"RLIMIT_NOFILE", 64, 128}, {"RLIMIT_MEMLOCK", 0, Unlimited}, {"RLIMIT_CORE", Unlimited, Unlimited}}
	s.Resources = &Resources{Memory: MinMemory, PIDs: 1, CPU: 10}
	s.Network.Search, s.Network.Options = []string{"a.example", "b"}, []string{"ndots:2", "use-vc"}
	s.Network.Hosts = []Host{{"db.example", netip.MustParseAddr("192.0.2.7")}, {"db", netip.MustParseAddr("fd00::1")}}
	return s
}

func TestBounded(t *testing.T) {
	s := bounded()
	readBack(t, s)
}

func TestCheckBounds(t *testing.T) {
	for _, tt := range []struct {
		err    string
		change func(*Spec)
	}{
		{`process.groups[1]: "audio" is not a group, or stands twice`, func(s *Spec) { s.Process.Groups[1] = "audio" }},
		{`process.groups[0]: ""`, func(s *Spec) { s.Process.Groups[0] = "" }},
		{`process.groups[0]: "a:b"`, func(s *Spec) { s.Process.Groups[0] = "a:b" }},
		{"process.groups: 0, want", func(s *Spec) { s.Process.Groups = []string{} }},
		{"process.groups: 65, want", func(s *Spec) { s.Process.Groups = make([]string, 65) }},
		{`process.seccomp: "default" is not "unconfined"`, func(s *Spec) { s.Process.Seccomp = "default" }},
		{"process.stopTimeout: 3601 s, more than 3600", func(s *Spec) { s.Process.StopTimeout = 3601 }},
		{"process.rlimits: empty", func(s *Spec) { s.Process.Rlimits = []Rlimit{} }},
		{`process.rlimits[0].name: unknown limit "RLIMIT_X"`, func(s *Spec) { s.Process.Rlimits[0].Name = "RLIMIT_X" }},
		{"process.rlimits[1].name: RLIMIT_NOFILE stands twice", func(s *Spec) { s.Process.Rlimits[1].Name = "RLIMIT_NOFILE" }},
		{"process.rlimits[0]: -2 is neither", func(s *Spec) { s.Process.Rlimits[0].Soft = -2 }},
		{"process.rlimits[0]: 9007199254740992 is neither", func(s *Spec) { s.Process.Rlimits[0].Hard = 1 << 53 }},
		{"process.rlimits[0]: soft limit 129 is above the hard one, 128", func(s *Spec) { s.Process.Rlimits[0].Soft = 129 }},
		{"process.rlimits[0]: soft limit -1 is above the hard one, 128", func(s *Spec) { s.Process.Rlimits[0].Soft = Unlimited }},
		{"resources: empty", func(s *Spec) { s.Resources = &Resources{} }},
		{"resources.memory: 1 bytes", func(s *Spec) { s.Resources.Memory = 1 }},
		{"resources.pids: 4194305, more", func(s *Spec) { s.Resources.PIDs = 1<<22 + 1 }},
		{"resources.cpu: 9 ms of a second", func(s *Spec) { s.Resources.CPU = 9 }},
		{`network.hosts[0].name: "a b" is not a host name`, func(s *Spec) { s.Network.Hosts[0].Name = "a b" }},
		{`network.hosts[0].name: "a..b"`, func(s *Spec) { s.Network.Hosts[0].Name = "a..b" }},
		{`network.hosts[0].name: "a\nb"`, func(s *Spec) { s.Network.Hosts[0].Name = "a\nb" }},
		{"network.hosts[0].address: not an address", func(s *Spec) { s.Network.Hosts[0].Address = netip.Addr{} }},
		{"network.hosts: 0, want", func(s *Spec) { s.Network.Hosts = []Host{} }},
		{`network.search[0]: "-a" is not a domain`, func(s *Spec) { s.Network.Search[0] = "-a" }},
		{`network.options[1]: "a b" is not an option`, func(s *Spec) { s.Network.Options[1] = "a b" }},
		{`network.options[0]: "a\nnameserver 192.0.2.1" is not`, func(s *Spec) { s.Network.Options[0] = "a\nnameserver 192.0.2.1" }},
		{"network.options: 0, want", func(s *Spec) { s.Network.Options = []string{} }},
		{"network.search: 33, want", func(s *Spec) { s.Network.Search = make([]string, 33) }},
	} {
		s := bounded()
		tt.change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("error %v, want %q", err, tt.err)
		}
	}
}
