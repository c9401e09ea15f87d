package pod

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// exampleMounts are one of each type.
func exampleMounts() []Mount {
	return []Mount{
		{Type: MountTmpfs, Target: "/dev/shm", Size: 1 << 20, Mode: "1777"},
		{Type: MountVolume, Target: "/var/lib/mysql", Size: MinDiskSize, Name: "data", Key: "data.key"},
		{Type: MountNFS, Target: "/srv", ReadOnly: true, Source: "[fd00::1]:/export/a b"},
	}
}

func TestMounts(t *testing.T) {
	s := example()
	s.Mounts, s.Scratch = exampleMounts(), &Scratch{Size: MinDiskSize}
	s.Secrets = &Secrets{Owners: []Hash{{1}}, Expects: []Secret{{Name: "data.key"}}}
	got := readBack(t, s)
	if diff := cmp.Diff(exampleMounts()[1:2], got.Volumes()); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
}

func TestCheckMounts(t *testing.T) {
	const tmpfs, volume, nfs = 0, 1, 2 // in exampleMounts
	of := func(i int, change func(*Mount)) func(*Spec) {
		return func(s *Spec) {
			m := exampleMounts()[i]
			change(&m)
			s.Mounts = []Mount{m}
		}
	}
	for _, tt := range []struct {
		err    string
		change func(*Spec)
	}{
		{"mounts: empty", func(s *Spec) { s.Mounts = []Mount{} }},
		{"mounts: 33, more than 32", func(s *Spec) { s.Mounts = slices.Repeat(exampleMounts(), 11) }},
		{"mounts: 9 volumes, more than 8", func(s *Spec) { s.Mounts = slices.Repeat(exampleMounts(), 9) }},
		{`mounts[0].type: "" is none of "tmpfs", "volume" and "nfs"`, of(tmpfs, func(m *Mount) { m.Type = "" })},
		{`mounts[0].type: "bind"`, of(tmpfs, func(m *Mount) { m.Type = "bind" })},
		{`mounts[0].target: "/"`, of(tmpfs, func(m *Mount) { m.Target = "/" })},
		{`mounts[0].target: "run"`, of(tmpfs, func(m *Mount) { m.Target = "run" })},
		{`mounts[0].target: "/run/"`, of(tmpfs, func(m *Mount) { m.Target = "/run/" })},
		{`mounts[0].target: "/run/../etc"`, of(tmpfs, func(m *Mount) { m.Target = "/run/../etc" })},
		{`mounts[0].target: "/a\x00b"`, of(tmpfs, func(m *Mount) { m.Target = "/a\x00b" })},
		{`mounts[0].target: "/proc" is for the agent`, of(tmpfs, func(m *Mount) { m.Target = "/proc" })},
		{`mounts[0].target: "/sys/fs/cgroup" is for the agent`, of(tmpfs, func(m *Mount) { m.Target = "/sys/fs/cgroup" })},
		{`mounts[0].target: "/dev/pts" is for the agent`, of(tmpfs, func(m *Mount) { m.Target = "/dev/pts" })},
		{`mounts[1].target: "/run" hides "/run"`, func(s *Spec) {
			s.Mounts = []Mount{{Type: MountTmpfs, Target: "/run"}, {Type: MountTmpfs, Target: "/run"}}
		}},
		{`mounts[1].target: "/run" hides "/run/lock"`, func(s *Spec) {
			s.Mounts = []Mount{{Type: MountTmpfs, Target: "/run/lock"}, {Type: MountTmpfs, Target: "/run"}}
		}},
		{"mounts[0].size: 4095 is not a multiple of 4096", of(tmpfs, func(m *Mount) { m.Size = 4095 })},
		{`mounts[0].mode: "777"`, of(tmpfs, func(m *Mount) { m.Mode = "777" })},
		{`mounts[0].mode: "0788"`, of(tmpfs, func(m *Mount) { m.Mode = "0788" })},
		{`mounts[0].name: means nothing for type "tmpfs"`, of(tmpfs, func(m *Mount) { m.Name = "a" })},
		{`mounts[0].key: means nothing for type "tmpfs"`, of(tmpfs, func(m *Mount) { m.Key = "a" })},
		{`mounts[0].source: means nothing for type "tmpfs"`, of(tmpfs, func(m *Mount) { m.Source = "a" })},
		{"mounts[0].size: 0", of(volume, func(m *Mount) { m.Size = 0 })},
		{"mounts[0].size: 67108863", of(volume, func(m *Mount) { m.Size = MinDiskSize - 1 })},
		{"mounts[0].size: 67112960", of(volume, func(m *Mount) { m.Size = MinDiskSize + 4096 })},
		{"mounts[0].size: 8796094070784", of(volume, func(m *Mount) { m.Size = MaxDiskSize + DiskUnit })},
		{`mounts[0].name: ""`, of(volume, func(m *Mount) { m.Name = "" })},
		{`mounts[0].name: "a/b"`, of(volume, func(m *Mount) { m.Name = "a/b" })},
		{`mounts[0].name: "-"`, of(volume, func(m *Mount) { m.Name = "-" })},
		{`mounts[0].name: "aaaaaaaaaaaaaaaaa"`, of(volume, func(m *Mount) { m.Name = strings.Repeat("a", MaxVolName+1) })},
		{`mounts[0].key: ""`, of(volume, func(m *Mount) { m.Key = "" })},
		{`mounts[0].key: "a b"`, of(volume, func(m *Mount) { m.Key = "a b" })},
		{`mounts[0].mode: means nothing for type "volume"`, of(volume, func(m *Mount) { m.Mode = "0755" })},
		{`mounts[1].name: volume "data" stands twice`, func(s *Spec) {
			s.Mounts = []Mount{exampleMounts()[volume], exampleMounts()[volume]}
			s.Mounts[1].Target = "/other"
		}},
		{`mounts[0].source: ""`, of(nfs, func(m *Mount) { m.Source = "" })},
		{"mounts[0].size: means nothing", of(nfs, func(m *Mount) { m.Size = 4096 })},
		{"scratch.size: 0", func(s *Spec) { s.Scratch = &Scratch{} }},
		{"scratch.size: 67108865", func(s *Spec) { s.Scratch = &Scratch{MinDiskSize + 1} }},
	} {
		t.Run(tt.err, func(t *testing.T) {
			s := example()
			tt.change(&s)
			if err := s.Check(); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
		})
	}
}

func TestParseNFSSource(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want NFSSource // zero: an error
	}{
		{"192.0.2.1:/", NFSSource{netip.MustParseAddr("192.0.2.1"), "/"}},
		{"192.0.2.1:/export/data", NFSSource{netip.MustParseAddr("192.0.2.1"), "/export/data"}},
		{"[2001:db8::1]:/a:/b", NFSSource{netip.MustParseAddr("2001:db8::1"), "/a:/b"}},
		{"", NFSSource{}},
		{"server:/export", NFSSource{}},
		{"192.0.2.1", NFSSource{}},
		{"192.0.2.1:export", NFSSource{}},
		{"192.0.2.1:/export/", NFSSource{}},
		{"192.0.2.1:/export/../etc", NFSSource{}},
		{"[192.0.2.1]:/export", NFSSource{}},
		{"2001:db8::1:/export", NFSSource{}},
		{"[2001:db8::1:/export", NFSSource{}},
		{"[2001:DB8::1]:/export", NFSSource{}},
		{"[fe80::1%eth0]:/export", NFSSource{}},
		{"192.0.2.1:/a\x00", NFSSource{}},
	} {
		t.Run(fmt.Sprintf("%q", tt.in), func(t *testing.T) {
			got, err := ParseNFSSource(tt.in)
			if got != tt.want || (err == nil) != (tt.want != NFSSource{}) {
				t.Errorf("%+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}
