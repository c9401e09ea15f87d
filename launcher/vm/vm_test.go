package vm

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/measure/stack"
)

// testStack makes a boot stack of small files.
func testStack(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := stack.Stack{MediaType: stack.MediaType, Lock: strings.Repeat("0", 64), Cmdline: "quiet"}
	for _, name := range []string{stack.Firmware, stack.Kernel, stack.Initrd, stack.Agent} {
		write(t, filepath.Join(dir, name), []byte(name))
		f, err := stack.Describe(dir, name, "test")
		if err != nil {
			t.Fatal(err)
		}
		s.Files = append(s.Files, f)
	}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, stack.Manifest), b)
	return dir
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func testSpec(blocks uint64) pod.Spec {
	return pod.Spec{
		MediaType: pod.MediaType,
		Image: pod.Image{
			Digest: "sha256:" + strings.Repeat("a", 64),
			Verity: pod.Verity{RootHash: pod.Hash{1}, DataBlocks: blocks},
		},
		Process: pod.Process{Args: []string{"/bin/true"}, Env: []string{}, WorkingDir: "/", Capabilities: []string{}, StopSignal: "SIGTERM"},
		Network: pod.Network{Hostname: "guest"},
		Console: pod.ConsoleNone,
	}
}

// fill writes a root.img of the size that blocks need.
func fill(blocks uint64) func(*os.File) (pod.Spec, error) {
	return func(f *os.File) (pod.Spec, error) {
		return testSpec(blocks), f.Truncate(RootSize(blocks))
	}
}

func TestCreateOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vms", "one")
	config := DefaultConfig()
	config.Forwards = []Forward{{netip.MustParseAddr("127.0.0.1"), 8080, 80, "tcp"}}
	stackDir := testStack(t)
	if err := Create(dir, config, stackDir, fill(300)); err != nil {
		t.Fatal(err)
	}
	v, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	equal := cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})
	if diff := cmp.Diff(config, v.Config, equal); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(testSpec(300), v.Spec, equal); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	if want, _ := testSpec(300).Canonical(); !bytes.Equal(v.SpecBytes, want) {
		t.Errorf("spec bytes %q, want %q", v.SpecBytes, want)
	}
	if target, err := os.Readlink(v.StackFile(stack.Kernel)); err != nil || target != filepath.Join(stackDir, stack.Kernel) {
		t.Errorf("kernel links to %q, %v", target, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v, want mode 0700", info.Mode(), err)
	}
	if err := Create(dir, config, stackDir, fill(300)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v, want %v", err, fs.ErrExist)
	}
}

func TestCreateLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	badConfig := DefaultConfig()
	badConfig.VCPUs = 0
	for _, tt := range []struct {
		name   string
		config Config
		write  func(*os.File) (pod.Spec, error)
		err    string
	}{
		{"failing write", DefaultConfig(), func(*os.File) (pod.Spec, error) { return testSpec(1), boom }, "boom"},
		{"bad spec", DefaultConfig(), func(*os.File) (pod.Spec, error) { return pod.Spec{}, nil }, "mediaType"},
		{"wrong size", DefaultConfig(), func(*os.File) (pod.Spec, error) { return testSpec(1), nil }, "root.img: 0 bytes, want a file of 4096"},
		{"bad config", badConfig, fill(1), "vcpus: 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parent := t.TempDir()
			err := Create(filepath.Join(parent, "vm"), tt.config, testStack(t), tt.write)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if left, _ := os.ReadDir(parent); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestCreateIntoEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	if err := Create(dir, DefaultConfig(), testStack(t), fill(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name     string
		tamper   func(t *testing.T, dir string)
		err      string
		readable bool // Read takes it
	}{
		{"spec not canonical", func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, SpecFile))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, SpecFile), append(b, '\n'))
		}, "not in canonical form", true},
		{"spec with an unknown member", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, SpecFile), []byte(`{"shell":true}`))
		}, `unknown member "shell"`, true},
		{"spec too long", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, SpecFile), make([]byte, pod.MaxSize+1))
		}, "more than", false},
		{"root cut off", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, RootFile), 4096); err != nil {
				t.Fatal(err)
			}
		}, "4096 bytes, want a file of 1245184", true},
		{"root is a folder", func(t *testing.T, dir string) {
			if err := errors.Join(os.Remove(filepath.Join(dir, RootFile)), os.Mkdir(filepath.Join(dir, RootFile), 0o700)); err != nil {
				t.Fatal(err)
			}
		}, "want a file", true},
		{"kernel changed", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, StackDir, stack.Kernel), []byte("vmlinux"))
		}, "vmlinuz: SHA-256", true},
		{"config with an unknown member", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, ConfigFile), []byte(`{"shell":true}`))
		}, `vm.json: offset 8: unknown member "shell"`, false},
		{"config missing", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, ConfigFile)); err != nil {
				t.Fatal(err)
			}
		}, "no such file", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "vm")
			if err := Create(dir, DefaultConfig(), testStack(t), fill(300)); err != nil {
				t.Fatal(err)
			}
			tt.tamper(t, dir)
			v, err := Open(dir)
			if err == nil || !strings.Contains(err.Error(), tt.err) || v != nil {
				t.Errorf("Open: %v, %v, want %q", v, err, tt.err)
			}
			if _, err := Read(dir); (err == nil) != tt.readable {
				t.Errorf("Read: %v, want readable %v", err, tt.readable)
			}
		})
	}
}

func TestConfigCheck(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	for _, tt := range []struct {
		err    string
		change func(*Config)
	}{
		{"mediaType", func(c *Config) { c.MediaType = "" }},
		{"vcpus: 513", func(c *Config) { c.VCPUs = 513 }},
		{`cpu: unknown CPU model "EPYC,+x"`, func(c *Config) { c.CPU = "EPYC,+x" }},
		{"memoryMiB: 64", func(c *Config) { c.MemoryMiB = 64 }},
		{"agent", func(c *Config) { c.Agent = netip.MustParseAddrPort("[::1]:5") }},
		{"hostAddress", func(c *Config) { c.Forwards = []Forward{{netip.Addr{}, 1, 2, "tcp"}} }},
		{"protocol", func(c *Config) { c.Forwards = []Forward{{local, 1, 2, "sctp"}} }},
		{"guestPort: 0", func(c *Config) { c.Forwards = []Forward{{local, 1, 0, "tcp"}} }},
		{"1/tcp is the agent's", func(c *Config) { c.Forwards = []Forward{{local, 1, 1, "tcp"}} }},
		{"forwards[1]: 127.0.0.1:5/tcp of the host is taken twice", func(c *Config) {
			c.Forwards = []Forward{{local, 5, 2, "tcp"}, {local, 5, 3, "tcp"}}
		}},
		{"forwards[0]: 127.0.0.1:7/tcp of the host is taken twice", func(c *Config) {
			c.Agent = netip.AddrPortFrom(local, 7)
			c.Forwards = []Forward{{local, 7, 2, "tcp"}}
		}},
	} {
		c := DefaultConfig()
		tt.change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("got error %v, want %q", err, tt.err)
		}
	}
	c := DefaultConfig()
	c.Forwards = []Forward{{local, 0, 2, "tcp"}, {local, 0, 3, "tcp"}, {local, 53, 53, "udp"}, {local, 53, 53, "tcp"}}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// The sizes are those of Linux' verity_ctr; 128 digests fill a block.
func TestRootSize(t *testing.T) {
	for blocks, want := range map[uint64]int64{1: 1, 2: 3, 128: 129, 129: 129 + 2 + 1, 128 * 128: 128*128 + 128 + 1} {
		if got := RootSize(blocks); got != want*BlockSize {
			t.Errorf("RootSize(%d) = %d, want %d blocks", blocks, got, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	b, err := DefaultConfig().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"forwards":[{"hostAddress":"0.0.0.0","hostPort":80,"guestPort":80,"protocol":"udp"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			if !cmp.Equal(c, Config{}, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})) {
				t.Fatalf("error %v with a value %+v", err, c)
			}
			return
		}
		b, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(b)
		if b2, _ := again.Encode(); err != nil || !bytes.Equal(b, b2) {
			t.Fatalf("not stable: %s, %s, %v", b, b2, err)
		}
	})
}
