package launcher

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kraudcloud/kattest/launcher/doctor"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure/stack"
)

// QEMU is the program that is run.
const QEMU = doctor.QEMU

// ErrNotReady says that the host lacks what SEV-SNP needs; the error's text
// lists all of it.
var ErrNotReady = errors.New("this host cannot launch an SEV-SNP guest")

// Host is the machine as far as a launch depends on it.
type Host struct{ doctor.Host }

// NewHost returns the machine on which this runs.
func NewHost() Host { return Host{doctor.Local{}} }

// DefaultAccel returns KVM where the processor's own virtualization stands
// behind it, and TCG elsewhere. That /dev/kvm opens says too little: a KVM
// without vmx or svm below it interprets instructions, and fails on some that
// the firmware needs.
func (h Host) DefaultAccel() Accel {
	info, err := h.ReadFile("/proc/cpuinfo")
	if err != nil || !hasFlag(info, "vmx") && !hasFlag(info, "svm") {
		return TCG
	}
	if h.Open("/dev/kvm") != nil {
		return TCG
	}
	return KVM
}

func hasFlag(cpuinfo, flag string) bool {
	for line := range strings.Lines(cpuinfo) {
		name, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) == "flags" {
			return strings.Contains(" "+strings.TrimSpace(flags)+" ", " "+flag+" ")
		}
	}
	return false
}

// DefaultCBitPos is the C-bit's position on every EPYC with SEV-SNP so far.
const DefaultCBitPos = 51

// Want is what a launch of v asks of its host. An empty sevDevice is
// doctor.DefaultSEVDevice.
func Want(v *vm.VM, sevDevice string) doctor.Want {
	w := doctor.Want{
		CPU:       v.Config.CPU,
		MemoryMiB: v.Config.MemoryMiB,
		Firmware:  v.StackFile(stack.Firmware),
		SEVDevice: sevDevice,
		VSock:     v.Config.VsockCID != 0,
	}
	if v.Config.Bridge != nil {
		w.Bridge = v.Config.Bridge.Name
	}
	return w
}

// CheckSNP reports everything that the host lacks, as one error that wraps
// ErrNotReady: the checks that fail when doctor examines the host.
func (h Host) CheckSNP(ctx context.Context, w doctor.Want) error {
	failed := doctor.Examine(ctx, h.Host, w).Failed()
	if len(failed) == 0 {
		return nil
	}
	var b strings.Builder
	for _, c := range failed {
		fmt.Fprintf(&b, "\n  %s: %s", c.Name, strings.ReplaceAll(c.Found, "\n", "; "))
	}
	return fmt.Errorf("%w:%s", ErrNotReady, b.String())
}
