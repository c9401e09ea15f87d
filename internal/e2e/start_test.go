package e2e

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/measure/stack"
)

// What the kernel and the initrd are shaped for.
const (
	// maxBoot is the most that both have together, in bytes.
	maxBoot = 10_000_000
	// maxRatio is the most processor time that a start takes, as a part of what
	// Debian's cloud kernel with its own initramfs takes.
	maxRatio = 0.35
)

func TestBootIsSmall(t *testing.T) {
	manifest, err := stack.Load(s.stack)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, f := range manifest.Files {
		if f.Name == stack.Kernel || f.Name == stack.Initrd {
			t.Logf("%s: %d bytes", f.Name, f.Size)
			total += f.Size
		}
	}
	if total > maxBoot {
		t.Errorf("kernel and initrd have %d bytes, want %d at most", total, maxBoot)
	}
}

// boots are the two that BenchmarkStart compares, and the first line that the
// first process of each writes. loglevel=4 is what quiet does, but Debian's
// initramfs is then silent too.
func boots(b *testing.B) []plainBoot {
	b.Helper()
	debian := os.Getenv("KATTEST_DEBIAN")
	if debian == "" {
		b.Skip("KATTEST_DEBIAN names no folder with Debian's kernel and initramfs: scripts/bench-start makes it")
	}
	manifest, err := stack.Load(s.stack)
	if err != nil {
		b.Fatal(err)
	}
	return []plainBoot{
		{"ours", filepath.Join(s.stack, stack.Kernel), filepath.Join(s.stack, stack.Initrd), manifest.Cmdline, "msg=agent"},
		{"debian", filepath.Join(debian, "vmlinuz"), filepath.Join(debian, "initrd.img"), "console=ttyS0 loglevel=4 panic=-1", "Loading, please wait"},
	}
}

type plainBoot struct{ name, kernel, initrd, cmdline, line string }

// start boots on a plain q35 under TCG, without firmware of ours, and returns the
// processor time that QEMU has used when the line is there.
func (p plainBoot) start(b *testing.B) time.Duration {
	b.Helper()
	qemu := exec.Command(launcher.QEMU,
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-accel", "tcg", "-machine", "q35", "-cpu", "EPYC-v4", "-smp", "1", "-m", "1G",
		"-kernel", p.kernel, "-initrd", p.initrd, "-append", p.cmdline, "-serial", "stdio")
	out, err := qemu.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := qemu.Start(); err != nil {
		b.Fatal(err)
	}
	limit := time.AfterFunc(3*time.Minute, func() { _ = qemu.Process.Kill() })
	defer limit.Stop()
	var console bytes.Buffer
	found := false
	for scan := bufio.NewScanner(out); !found && scan.Scan(); {
		console.Write(append(scan.Bytes(), '\n'))
		found = strings.Contains(scan.Text(), p.line)
	}
	_ = qemu.Process.Kill() // it may have ended already
	_ = qemu.Wait()         // it was killed
	if !found {
		b.Fatalf("%s: nothing says %q:\n%s", p.name, p.line, console.Bytes())
	}
	return qemu.ProcessState.UserTime() + qemu.ProcessState.SystemTime()
}

// BenchmarkStart compares processor time from QEMU's start to the first line of
// the guest's first process: medians, the two taking turns.
func BenchmarkStart(b *testing.B) {
	both := boots(b)
	times := map[string][]time.Duration{}
	for b.Loop() {
		for _, p := range both {
			times[p.name] = append(times[p.name], p.start(b))
		}
	}
	median := func(name string) float64 {
		slices.Sort(times[name])
		return times[name][len(times[name])/2].Seconds()
	}
	ratio := median("ours") / median("debian")
	b.ReportMetric(0, "ns/op") // the time of the clock on the wall says nothing
	b.ReportMetric(median("ours"), "ours-cpu-s")
	b.ReportMetric(median("debian"), "debian-cpu-s")
	b.ReportMetric(ratio, "ratio")
	if ratio > maxRatio {
		b.Errorf("ratio %.3f, want %.2f at most", ratio, maxRatio)
	}
}
