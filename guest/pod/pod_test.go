package pod

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func example() Spec {
	return Spec{
		MediaType: MediaType,
		Image: Image{
			Reference: "docker.io/library/mariadb:11",
			Digest:    "sha256:" + strings.Repeat("ab", 32),
			Verity:    Verity{RootHash: Hash{1, 2}, Salt: Hash{3}, DataBlocks: 1000},
		},
		Process: Process{
			Args:         []string{"docker-entrypoint.sh", "mariadbd"},
			Env:          []string{"PATH=/usr/bin", "MARIADB_DATABASE=größe"},
			WorkingDir:   "/",
			User:         "mysql:mysql",
			Capabilities: DefaultCapabilities,
			StopSignal:   "SIGTERM",
		},
		Network: Network{
			Hostname:    "db",
			Addresses:   []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24")},
			Gateways:    []netip.Addr{netip.MustParseAddr("10.0.2.2")},
			Nameservers: []netip.Addr{netip.MustParseAddr("10.0.2.3")},
		},
		Ports:   []Port{{3306, "tcp"}},
		Console: ConsoleOutput,
	}
}

// The canonical form and its digest never change for this media type: a
// published HOST_DATA would no longer be found.
func TestCanonicalIsPinned(t *testing.T) {
	got, err := example().Canonical()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"console":"output","image":{"digest":"sha256:abababababababababababababababababababababababababababababababab","reference":"docker.io/library/mariadb:11","verity":{"dataBlocks":1000,"rootHash":"0102000000000000000000000000000000000000000000000000000000000000","salt":"0300000000000000000000000000000000000000000000000000000000000000"}},"mediaType":"application/vnd.kattest.launch-spec.v1+json","network":{"addresses":["10.0.2.15/24"],"gateways":["10.0.2.2"],"hostname":"db","nameservers":["10.0.2.3"]},"ports":[{"port":3306,"protocol":"tcp"}],"process":{"args":["docker-entrypoint.sh","mariadbd"],"capabilities":["CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_KILL","CAP_SETGID","CAP_SETUID","CAP_SETPCAP","CAP_NET_BIND_SERVICE","CAP_NET_RAW","CAP_SYS_CHROOT","CAP_AUDIT_WRITE","CAP_SETFCAP"],"env":["PATH=/usr/bin","MARIADB_DATABASE=größe"],"stopSignal":"SIGTERM","user":"mysql:mysql","workingDir":"/"}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("canonical form (-want +got):\n%s", diff)
	}
	digest, err := example().HostData()
	if err != nil {
		t.Fatal(err)
	}
	// (printf 'kattest launch spec v1\0'; cat spec.json) | sha256sum
	if digest.String() != "72f523afb01c5292ecccd87d4bd9f9926f74c209aed45748f1fc3d0954811d3d" {
		t.Errorf("HOST_DATA %v", digest)
	}
	if other := Digest(got); other != digest {
		t.Errorf("of the bytes %v, of the spec %v", other, digest)
	}
}

func TestParse(t *testing.T) {
	data, err := example().Canonical()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, data, "", " "); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseText(indented.Bytes()); err != nil {
		t.Errorf("text form: %v", err)
	}
	if _, err := Parse(indented.Bytes()); err == nil || !strings.Contains(err.Error(), "offset 1: not in canonical form") {
		t.Errorf("text form taken as canonical: %v", err)
	}
	for _, change := range []struct{ name, from, to, err string }{
		{"unknown member", `{"console"`, `{"privileged":true,"console"`, `unknown member "privileged"`},
		{"member twice", `{"console":"output"`, `{"console":"none","console":"output"`, `member "console" stands twice`},
		{"another case", `"console"`, `"Console"`, `unknown member "Console"`},
		{"data behind", `"workingDir":"/"}}`, `"workingDir":"/"}}x`, "after top-level value"},
		{"cut off", `"workingDir":"/"}}`, `"workingDir":"/"}`, "unexpected end"},
	} {
		t.Run(change.name, func(t *testing.T) {
			bad := strings.Replace(string(data), change.from, change.to, 1)
			spec, err := Parse([]byte(bad))
			if err == nil || !strings.Contains(err.Error(), change.err) {
				t.Errorf("error %v, want one with %q", err, change.err)
			}
			if !cmp.Equal(spec, Spec{}, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})) {
				t.Error("a spec beside the error")
			}
		})
	}
	if _, err := Parse(bytes.Repeat([]byte(" "), MaxSize+1)); err == nil || !strings.Contains(err.Error(), "more than 1048576") {
		t.Errorf("too large: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		err    string
		change func(*Spec)
	}{
		{"mediaType:", func(s *Spec) { s.MediaType = "" }},
		{"image.digest:", func(s *Spec) { s.Image.Digest = "latest" }},
		{"image.verity.rootHash: missing", func(s *Spec) { s.Image.Verity.RootHash = Hash{} }},
		{"image.verity.dataBlocks: 0", func(s *Spec) { s.Image.Verity.DataBlocks = 0 }},
		{"image.verity.dataBlocks: 2199023255552", func(s *Spec) { s.Image.Verity.DataBlocks = 1 << 41 }},
		{"process.args: empty", func(s *Spec) { s.Process.Args = nil }},
		{"process.args[1]: holds a NUL", func(s *Spec) { s.Process.Args = []string{"a", "b\x00"} }},
		{"process.env: missing or null", func(s *Spec) { s.Process.Env = nil }},
		{"process.capabilities: missing or null", func(s *Spec) { s.Process.Capabilities = nil }},
		{`process.env[0]: "PATH"`, func(s *Spec) { s.Process.Env = []string{"PATH"} }},
		{`process.env[0]: "=x"`, func(s *Spec) { s.Process.Env = []string{"=x"} }},
		{"process.env[1]: A stands twice", func(s *Spec) { s.Process.Env = []string{"A=1", "A=2"} }},
		{"process.workingDir:", func(s *Spec) { s.Process.WorkingDir = "srv" }},
		{"process.workingDir:", func(s *Spec) { s.Process.WorkingDir = "/srv/../etc" }},
		{"process.user:", func(s *Spec) { s.Process.User = "a\nb" }},
		{`process.capabilities[0]: unknown capability "ALL"`, func(s *Spec) { s.Process.Capabilities = []string{"ALL"} }},
		{"process.capabilities[0]: CAP_SYS_ADMIN would let", func(s *Spec) { s.Process.Capabilities = []string{"CAP_SYS_ADMIN"} }},
		{"process.capabilities[0]: CAP_MKNOD would let", func(s *Spec) { s.Process.Capabilities = []string{"CAP_MKNOD"} }},
		{"process.capabilities[1]: CAP_KILL stands twice", func(s *Spec) { s.Process.Capabilities = []string{"CAP_KILL", "CAP_KILL"} }},
		{"process.stopSignal:", func(s *Spec) { s.Process.StopSignal = "15" }},
		{"network.hostname:", func(s *Spec) { s.Network.Hostname = "a b" }},
		{"network.addresses[0]:", func(s *Spec) { s.Network.Addresses = make([]netip.Prefix, 1) }},
		{"network.gateways[0]:", func(s *Spec) { s.Network.Gateways = make([]netip.Addr, 1) }},
		{"network.nameservers[0]:", func(s *Spec) { s.Network.Nameservers = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} }},
		{"ports[0]: 0/tcp", func(s *Spec) { s.Ports = []Port{{0, "tcp"}} }},
		{"ports[0]: 80/sctp", func(s *Spec) { s.Ports = []Port{{80, "sctp"}} }},
		{"ports[1]: 80/tcp stands twice", func(s *Spec) { s.Ports = []Port{{80, "tcp"}, {80, "tcp"}} }},
		{"console:", func(s *Spec) { s.Console = "" }},
	} {
		t.Run(tt.err, func(t *testing.T) {
			s := example()
			tt.change(&s)
			if err := s.Check(); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
			if b, err := s.Canonical(); err == nil || b != nil {
				t.Errorf("canonical form %q of a bad spec", b)
			}
			if h, err := s.HostData(); err == nil || h != (Hash{}) {
				t.Errorf("HOST_DATA %v of a bad spec", h)
			}
		})
	}
	if err := (Spec{}).Check(); err == nil || strings.Count(err.Error(), "\n") < 5 {
		t.Errorf("not all is reported: %v", err)
	}
}

// No default is forbidden, and each is known.
func TestDefaultCapabilities(t *testing.T) {
	if err := example().Check(); err != nil {
		t.Error(err)
	}
	if len(Capabilities) != 41 { // CAP_LAST_CAP of Linux 6.12 is 40
		t.Errorf("%d capabilities are known, want 41", len(Capabilities))
	}
}

func FuzzParse(f *testing.F) {
	data, err := example().Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"mediaType":"application/vnd.kattest.launch-spec.v1+json","ports":[{"port":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := Parse(data)
		if err != nil {
			if !cmp.Equal(spec, Spec{}, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})) {
				t.Fatal("a spec beside the error")
			}
			return
		}
		again, err := spec.Canonical()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q was taken, and is %q when written (%v)", data, again, err)
		}
	})
}

// readBack returns what Parse makes of the spec's canonical form: the spec.
func readBack(t *testing.T, s Spec) Spec {
	t.Helper()
	data, err := s.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	return got
}
