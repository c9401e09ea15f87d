package launcher

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/launcher/vm"
)

// cpuidFile is what the cpuid driver gives for the leaves that are read: a file
// of which a position is a leaf. Leaves near 2^31 do not fit a real file.
type cpuidFile map[uint32][4]uint32

func (c cpuidFile) Open(name string) (fs.File, error) {
	if c == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return openCPUID{leaves: c}, nil
}

type openCPUID struct {
	fs.File
	leaves cpuidFile
}

func (openCPUID) Close() error { return nil }

func (o openCPUID) ReadAt(b []byte, offset int64) (int, error) {
	for i, r := range o.leaves[uint32(offset)] {
		binary.LittleEndian.PutUint32(b[4*i:], r)
	}
	return 16, nil
}

// fakeRoot is a file system with /dev/cpu/0/cpuid beside plain files.
type fakeRoot struct {
	fstest.MapFS
	cpuid cpuidFile
}

func (r fakeRoot) Open(name string) (fs.File, error) {
	if name == "dev/cpu/0/cpuid" {
		return r.cpuid.Open(name)
	}
	return r.MapFS.Open(name)
}

var (
	amd = [4]uint32{0x10, 0x68747541, 0x444d4163, 0x69746e65} // "Auth", "cAMD", "enti"
	// epyc is a Milan: SME, SEV, page flush, SEV-ES, SNP; C-bit 51.
	epyc  = cpuidFile{0: amd, 0x80000000: {0x80000023}, 0x8000001f: {0x1f, 51 | 5<<6, 509, 100}}
	intel = cpuidFile{0: {0x16, 0x756e6547, 0x6c65746e, 0x49656e69}}
)

// goodHost has all that SEV-SNP needs.
func goodHost() Host {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	return Host{
		Root: fakeRoot{fstest.MapFS{
			"proc/cpuinfo":                          file("processor\t: 0\nflags\t\t: fpu svm sev sev_es sev_snp\n"),
			"proc/sys/kernel/osrelease":             file("6.12.95-amd64\n"),
			"sys/module/kvm_amd/parameters/sev_snp": file("Y\n"),
		}, epyc},
		Ask: func(_ context.Context, args ...string) ([]byte, error) {
			return []byte(map[string]string{
				"-object": "List of user creatable objects:\n  memory-backend-memfd\n  sev-snp-guest\n",
				"-cpu":    "Available CPUs:\n  EPYC-v3               (alias)\n  EPYC-v4               AMD EPYC-v4 Processor\n",
			}[args[0]]), nil
		},
		Writable: func(string) error { return nil },
	}
}

func TestCBitPos(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cpuid cpuidFile
		want  int
		err   string
	}{
		{"EPYC", epyc, 51, ""},
		{"Intel", intel, 0, `"GenuineIntel", not AMD's`},
		{"no such leaf", cpuidFile{0: amd, 0x80000000: {0x80000008}, 0x8000001f: {0x21f}}, 0, "no memory encryption"},
		{"no SNP", cpuidFile{0: amd, 0x80000000: {0x80000023}, 0x8000001f: {0x0f, 51}}, 0, "no SEV-SNP"},
		{"no driver", nil, 0, "modprobe cpuid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := goodHost()
			h.Root = fakeRoot{h.Root.(fakeRoot).MapFS, tt.cpuid}
			got, err := h.CBitPos()
			if got != tt.want || (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %d, %v; want %d, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestDefaultAccel(t *testing.T) {
	for _, tt := range []struct {
		name, cpuinfo string
		kvm           error
		want          Accel
	}{
		{"AMD", "flags\t\t: fpu svm sse\n", nil, KVM},
		{"Intel", "flags\t\t: fpu vmx sse\n", nil, KVM},
		{"KVM without a processor's virtualization", "flags\t\t: fpu sse vmx2 nosvm\n", nil, TCG},
		{"no /dev/kvm", "flags\t\t: svm\n", fs.ErrNotExist, TCG},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := goodHost()
			h.Root = fstest.MapFS{"proc/cpuinfo": {Data: []byte(tt.cpuinfo)}}
			h.Writable = func(string) error { return tt.kvm }
			if got := h.DefaultAccel(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestCheckSNP: everything that is missing is said at once.
func TestCheckSNP(t *testing.T) {
	v := &vm.VM{Dir: t.TempDir(), Config: vm.DefaultConfig()}
	firmware := v.StackFile("OVMF.fd")
	if err := os.MkdirAll(filepath.Dir(firmware), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(firmware, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	h := Host{
		Root: fakeRoot{fstest.MapFS{"proc/sys/kernel/osrelease": {Data: []byte("6.1.0-40-amd64\n")}}, intel},
		Ask: func(context.Context, ...string) ([]byte, error) {
			return []byte("  sev-guest\n  EPYC-v3\n"), nil
		},
		Writable: func(string) error { return fs.ErrNotExist },
	}
	err := h.CheckSNP(t.Context(), v)
	if !errors.Is(err, ErrNotReady) {
		t.Fatalf("got error %v", err)
	}
	for _, want := range []string{
		"not AMD's",
		"Linux 6.1.0-40-amd64: KVM launches SEV-SNP guests from 6.11 on",
		"/dev/kvm: file does not exist",
		"/dev/sev: file does not exist",
		"kvm_amd module is not loaded",
		"no sev-snp-guest object",
		"no CPU model EPYC-v4",
		"OVMF.fd",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}

	// The firmware is the one thing that goodHost cannot make up.
	err = goodHost().CheckSNP(t.Context(), v)
	if err == nil {
		t.Fatal("a firmware of zeros passes")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 2 || !strings.Contains(lines[1], "OVMF.fd") {
		t.Errorf("a good host with a firmware of zeros: %v", err)
	}
}

func TestKernelVersion(t *testing.T) {
	type version struct {
		major, minor int
		ok           bool
	}
	for release, want := range map[string]version{
		"6.12.95-amd64": {6, 12, true},
		"6.11":          {6, 11, true},
		"7.0-rc1\n":     {7, 0, true},
		"six":           {0, 0, false},
		"":              {0, 0, false},
	} {
		major, minor, ok := kernelVersion(release)
		if diff := cmp.Diff(want, version{major, minor, ok}, cmp.AllowUnexported(version{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", release, diff)
		}
	}
}

// TestRunNeverFallsBack: SNP on a host without it ends before QEMU starts, and
// leaves nothing in the folder.
func TestRunNeverFallsBack(t *testing.T) {
	v := &vm.VM{Dir: t.TempDir(), Config: vm.DefaultConfig()}
	h := goodHost()
	h.Root = fakeRoot{fstest.MapFS{}, intel}
	exit, err := h.Run(t.Context(), v, Options{Platform: SNP})
	if exit != 0 || !errors.Is(err, ErrNotReady) {
		t.Errorf("got %d, %v", exit, err)
	}
	left, err := os.ReadDir(v.Dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
