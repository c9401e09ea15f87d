package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kraudcloud/kattest/measure"
)

// kattest measure needs less than 64 MB of memory, whatever the files' sizes: the
// largest firmware that it takes, and a kernel and an initrd of 512 MiB.
func TestMeasureInLittleMemory(t *testing.T) {
	dir := t.TempDir()
	small, err := os.ReadFile(filepath.Join(s.stack, "OVMF.fd"))
	if err != nil {
		t.Fatal(err)
	}
	image := make([]byte, measure.MaxFirmware)
	copy(image[len(image)-len(small):], small)
	firmware, large := filepath.Join(dir, "OVMF.fd"), filepath.Join(dir, "large")
	if err := os.WriteFile(firmware, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 512<<20); err != nil { // a hole, read as zeros
		t.Fatal(err)
	}
	cmd := s.command("kattest", "measure", "--firmware", firmware, "--kernel", large, "--initrd", large, "--vcpus", "1,2,512", "--output", "digest")
	run(t, cmd).want(t, 0)
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatalf("%T is no usage", cmd.ProcessState.SysUsage())
	}
	if most := usage.Maxrss * 1024; most > 64e6 {
		t.Errorf("%d bytes of memory, want 64 MB at most", most)
	}
}
