package pod

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/internal/lazyre"
)

// Mount is what the workload sees at one path beside its image.
type Mount struct {
	Type     MountType `json:"type"`
	Target   string    `json:"target"` // absolute, in the container
	ReadOnly bool      `json:"readOnly,omitempty"`
	// Size, in bytes, is the most that a tmpfs takes (0: half of the memory),
	// and the exact size of the disk that holds a volume.
	Size uint64 `json:"size,omitempty"`
	Mode string `json:"mode,omitempty"` // tmpfs: of its root, four octal digits; empty is 1777
	Name string `json:"name,omitempty"` // volume: which of the host's disks
	// Key is the name of the secret from which the volume's keys come.
	Key    string `json:"key,omitempty"`
	Source string `json:"source,omitempty"` // nfs: ADDRESS:/PATH
}

// MountType is what is mounted.
type MountType string

// The values of MountType.
const (
	MountTmpfs  MountType = "tmpfs"  // in the guest's memory
	MountVolume MountType = "volume" // a disk of the host's, encrypted and authenticated
	MountNFS    MountType = "nfs"    // a server's: the server reads and writes it, and whoever is on the way
)

// Scratch is a disk under the container's writable layer, in place of memory.
// Its keys are born in the guest and end with it.
type Scratch struct {
	Size uint64 `json:"size"` // bytes, of the disk
}

// Limits of Mounts and Scratch.
const (
	MaxMounts   = 32
	MaxVolumes  = 8        // each is a disk
	DiskUnit    = 1 << 20  // bytes; a disk is a multiple of it
	MinDiskSize = 64 << 20 // bytes: two journals and a file system
	MaxDiskSize = 8 << 40  // bytes: the file system has 32-bit block numbers
	MaxVolName  = 16       // bytes: a disk's serial has 20
	tmpfsUnit   = 4096     // bytes; a tmpfs is a multiple of it
)

var (
	modeRE   = lazyre.New(`^[0-7]{4}$`)
	volumeRE = lazyre.New(`^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$`)
	secretRE = lazyre.New(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`)
)

// NFSSource is where an NFS volume is.
type NFSSource struct {
	Server netip.Addr
	Path   string // absolute
}

// ParseNFSSource reads ADDRESS:/PATH, an IPv6 address in brackets. A name
// instead of an address would be for the host to resolve.
func ParseNFSSource(s string) (NFSSource, error) {
	host, dir, ok := strings.Cut(s, ":/")
	if inner, v6 := strings.CutPrefix(host, "["); v6 {
		host, v6 = strings.CutSuffix(inner, "]")
		ok = ok && v6
	}
	server, err := netip.ParseAddr(host)
	source := NFSSource{server, "/" + dir}
	if !ok || err != nil || server.Zone() != "" || !cleanPath(source.Path) || source.String() != s {
		return NFSSource{}, fmt.Errorf("%q is not ADDRESS:/PATH, an IPv6 address in brackets", s)
	}
	return source, nil
}

// String returns ADDRESS:/PATH.
func (s NFSSource) String() string {
	if s.Server.Is6() {
		return fmt.Sprintf("[%s]:%s", s.Server, s.Path)
	}
	return fmt.Sprintf("%s:%s", s.Server, s.Path)
}

// Volumes are the mounts of type volume, in their order.
func (s Spec) Volumes() []Mount {
	var volumes []Mount
	for _, m := range s.Mounts {
		if m.Type == MountVolume {
			volumes = append(volumes, m)
		}
	}
	return volumes
}

func (s Spec) checkMounts(bad func(format string, args ...any)) {
	if s.Mounts != nil && len(s.Mounts) == 0 {
		bad("mounts: empty; it is left out instead")
	}
	if len(s.Mounts) > MaxMounts {
		bad("mounts: %d, more than %d", len(s.Mounts), MaxMounts)
	}
	if n := len(s.Volumes()); n > MaxVolumes {
		bad("mounts: %d volumes, more than %d", n, MaxVolumes)
	}
	names := map[string]bool{}
	for i, m := range s.Mounts {
		at := fmt.Sprintf("mounts[%d]", i)
		m.check(func(format string, args ...any) { bad(at+"."+format, args...) })
		for _, earlier := range s.Mounts[:i] {
			if m.Target == earlier.Target || strings.HasPrefix(earlier.Target, m.Target+"/") {
				bad("%s.target: %q hides %q", at, m.Target, earlier.Target)
			}
		}
		if m.Type == MountVolume && names[m.Name] {
			bad("%s.name: volume %q stands twice", at, m.Name)
		}
		names[m.Name] = true
	}
	if s.Scratch != nil {
		checkDiskSize("scratch.size", s.Scratch.Size, bad)
	}
}

func (m Mount) check(bad func(format string, args ...any)) {
	if !cleanPath(m.Target) || m.Target == "/" {
		bad("target: %q is not a clean absolute path below /", m.Target)
	}
	if m.Target != "/dev/shm" && agents(m.Target) {
		bad("target: %q is for the agent to fill", m.Target)
	}
	switch m.Type {
	case MountTmpfs:
		m.only(bad, "size", "mode")
		if m.Size%tmpfsUnit != 0 || m.Size > MaxDiskSize {
			bad("size: %d is not a multiple of %d up to 2^43", m.Size, tmpfsUnit)
		}
		if m.Mode != "" && !modeRE().MatchString(m.Mode) {
			bad("mode: %q is not four octal digits", m.Mode)
		}
	case MountVolume:
		m.only(bad, "size", "name", "key")
		checkDiskSize("size", m.Size, bad)
		if !volumeRE().MatchString(m.Name) {
			bad("name: %q is not 1 to %d of a-z, 0-9 and inner hyphens", m.Name, MaxVolName)
		}
		if !secretRE().MatchString(m.Key) {
			bad("key: %q is not a secret's name", m.Key)
		}
	case MountNFS:
		m.only(bad, "source")
		if _, err := ParseNFSSource(m.Source); err != nil {
			bad("source: %v", err)
		}
	default:
		bad("type: %q is none of %q, %q and %q", m.Type, MountTmpfs, MountVolume, MountNFS)
	}
}

// only reports members that mean nothing for the mount's type.
func (m Mount) only(bad func(format string, args ...any), allowed ...string) {
	for _, member := range []struct {
		name string
		set  bool
	}{
		{"size", m.Size != 0},
		{"mode", m.Mode != ""},
		{"name", m.Name != ""},
		{"key", m.Key != ""},
		{"source", m.Source != ""},
	} {
		if member.set && !slices.Contains(allowed, member.name) {
			bad("%s: means nothing for type %q", member.name, m.Type)
		}
	}
}

func checkDiskSize(at string, size uint64, bad func(format string, args ...any)) {
	if size < MinDiskSize || size > MaxDiskSize || size%DiskUnit != 0 {
		bad("%s: %d is not a multiple of %d from %d to 2^43", at, size, DiskUnit, MinDiskSize)
	}
}

// agents says whether the agent fills the path itself.
func agents(target string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if target == dir || strings.HasPrefix(target, dir+"/") {
			return true
		}
	}
	return false
}

func cleanPath(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsAny(p, "\x00\n")
}
