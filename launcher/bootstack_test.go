package launcher

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure/stack"
)

// The tests in boot_test.go boot the firmware and the kernel of the boot stack
// that $KATTEST_STACK names, with testdata/guest in the agent's place.

// boots is one stack, and one simulated PSP, for all of them.
type boots struct{ dir string }

var prepareBoots = sync.OnceValues(func() (boots, error) {
	from := os.Getenv("KATTEST_STACK")
	dir, err := os.MkdirTemp("", "launcher-test-*")
	if err != nil {
		return boots{}, err
	}
	b := boots{dir}
	if err := os.Mkdir(b.stack(), 0o700); err != nil {
		return boots{}, err
	}
	s, err := stack.Read(from)
	if err != nil {
		return boots{}, err
	}
	for _, name := range []string{stack.Firmware, stack.Kernel} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return boots{}, err
		}
		if err := os.WriteFile(filepath.Join(b.stack(), name), data, 0o600); err != nil {
			return boots{}, err
		}
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "init"), "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		return boots{}, fmt.Errorf("%w: %s", err, out)
	}
	init, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil {
		return boots{}, err
	}
	if err := os.WriteFile(filepath.Join(b.stack(), stack.Initrd), newc(init), 0o600); err != nil {
		return boots{}, err
	}
	return b, writeManifest(b.stack(), s.Cmdline)
})

func (b boots) stack() string { return filepath.Join(b.dir, "stack") }
func (b boots) psp() string   { return filepath.Join(b.dir, "psp") }

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv("KATTEST_STACK") != "" {
		if b, err := prepareBoots(); err == nil {
			os.RemoveAll(b.dir)
		}
	}
	os.Exit(code)
}

func writeManifest(dir, cmdline string) error {
	s := stack.Stack{MediaType: stack.MediaType, Lock: strings.Repeat("0", 64), Cmdline: cmdline}
	for _, name := range []string{stack.Firmware, stack.Kernel, stack.Initrd} {
		f, err := stack.Describe(dir, name, "a test")
		if err != nil {
			return err
		}
		s.Files = append(s.Files, f)
	}
	data, err := s.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, stack.Manifest), data, 0o600)
}

// newc is an initramfs with nothing but /init and a console.
// Source: Linux 6.12, Documentation/driver-api/early-userspace/buffer-format.rst.
func newc(init []byte) []byte {
	var b bytes.Buffer
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	entry := func(name string, mode, major, minor int, data []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			0, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
		pad()
		b.Write(data)
		pad()
	}
	entry("dev", 0o40755, 0, 0, nil)
	entry("dev/console", 0o20600, 5, 1, nil)
	entry("init", 0o100755, 0, 0, init)
	entry("TRAILER!!!", 0, 0, 0, nil)
	return b.Bytes()
}

// guest makes a VM folder in which the guest plays a part.
func guest(t testing.TB, args ...string) *vm.VM {
	t.Helper()
	if os.Getenv("KATTEST_STACK") == "" {
		t.Skip("KATTEST_STACK names no boot stack: 'kattest build' makes one")
	}
	b, err := prepareBoots()
	if err != nil {
		t.Fatal(err)
	}
	return guestOf(t, b.stack(), args...)
}

func guestOf(t testing.TB, stackDir string, args ...string) *vm.VM {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vm")
	config := vm.DefaultConfig()
	config.MemoryMiB = 512
	err := vm.Create(dir, config, stackDir, func(root *os.File) (pod.Spec, error) {
		_, err := root.Write(make([]byte, vm.BlockSize))
		return pod.Spec{
			MediaType: pod.MediaType,
			Image: pod.Image{
				Digest: "sha256:" + strings.Repeat("1", 64),
				Verity: pod.Verity{RootHash: pod.Hash{1}, DataBlocks: 1},
			},
			Process: pod.Process{Args: args, Env: []string{}, WorkingDir: "/", Capabilities: []string{}, StopSignal: "SIGTERM"},
			Network: pod.Network{Hostname: "guest"},
			Console: pod.ConsoleOutput,
		}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := vm.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func simulated(t testing.TB) Options {
	t.Helper()
	b, err := prepareBoots()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Platform: Sim, PSPState: b.psp(), BootTimeout: 3 * time.Minute}
}
