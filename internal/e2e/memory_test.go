package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	args := []string{"measure", "--firmware", firmware, "--kernel", large, "--initrd", large, "--vcpus", "1,2,512", "--output", "digest"}
	most := maxRSS(t, s.command("kattest", args...))
	if most > 64e6 {
		t.Errorf("%d bytes of memory, want 64 MB at most", most)
	}
}

// usageOf in the environment makes the test's program run a command and say how
// much memory it took. Linux counts for a process what the one that started it
// had, which for these tests is much.
const usageOf = "KATTEST_E2E_USAGE"

// maxRSS runs the command, and returns its most memory in bytes.
func maxRSS(t *testing.T, of *exec.Cmd) int64 {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, of.Args...)
	cmd.Env = append(os.Environ(), usageOf+"=1")
	r := run(t, cmd)
	r.want(t, 0)
	kilobytes, err := strconv.ParseInt(r.stdout, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes * 1024
}

// sayUsage is what the test's program does then.
func sayUsage() int {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 1
	}
	fmt.Print(usage.Maxrss)
	return 0
}
