package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Capabilities of KVM.
// Source: Linux 6.12, include/uapi/linux/kvm.h.
const (
	capMemoryAttributes = 233
	capGuestMemfd       = 234
	capVMTypes          = 235

	vmTypeSNP = 4 // KVM_X86_SNP_VM, a bit of capVMTypes
)

// kvmAMD checks a parameter of the module.
func kvmAMD(parameter string) func(exam) finding {
	return func(e exam) finding {
		if _, err := encryption(e.host); errors.Is(err, errNotAMD) {
			return skip("cpu")
		}
		file := "/sys/module/kvm_amd/parameters/" + parameter
		value, err := e.host.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return fail("load kvm_amd ('modprobe kvm_amd'; virtualization, SVM, must be on in the BIOS), of Linux 6.11 or later",
				"%s is not there: the module is not loaded, or does not know it", file)
		}
		if err != nil {
			return unknown("mount /sys", err)
		}
		value = strings.TrimSpace(value)
		fix := fmt.Sprintf("see the failures above it; else take kvm_amd.%s=0 off the kernel's command line and /etc/modprobe.d, and see 'dmesg | grep -i -e sev -e ccp'", parameter)
		return passIf(value == "Y" || value == "1", fix, "%s", value)
	}
}

func (e exam) kvm() finding {
	return e.device("/dev/kvm", fail("enable virtualization (SVM) in the BIOS and load kvm_amd ('modprobe kvm_amd')", ""))
}

func (e exam) kvmSNP() finding {
	return e.capability(capVMTypes, func(n int) (bool, string) {
		return n>>vmTypeSNP&1 == 1, fmt.Sprintf("VM types %#x", n)
	}, "see the failures above it: KVM offers SNP guests once BIOS, IOMMU, RMP and secure processor are as they must be")
}

func (e exam) kvmMemoryAttributes() finding {
	return e.capability(capMemoryAttributes, func(n int) (bool, string) {
		return n&(1<<3) != 0, fmt.Sprintf("attributes %#x", n) // KVM_MEMORY_ATTRIBUTE_PRIVATE
	}, "see the failures above it; else install Linux 6.11 or later, with CONFIG_KVM_GENERIC_PRIVATE_MEM (CONFIG_KVM_AMD_SEV selects it)")
}

func (e exam) kvmGuestMemfd() finding {
	return e.capability(capGuestMemfd, func(n int) (bool, string) {
		return n != 0, fmt.Sprintf("%d", n)
	}, "see the failures above it; else install Linux 6.11 or later, with CONFIG_KVM_PRIVATE_MEM (CONFIG_KVM_AMD_SEV selects it)")
}

func (e exam) capability(number uint32, judge func(int) (bool, string), fix string) finding {
	if e.kvm().outcome != Pass {
		return skip("kvm")
	}
	n, err := e.host.KVM(number)
	if err != nil {
		return unknown(denied("/dev/kvm"), err)
	}
	ok, found := judge(n)
	return passIf(ok, fix, "%s", found)
}

func (e exam) vsock() finding {
	return e.wanted("/dev/vhost-vsock", "load it ('modprobe vhost_vsock') for guests that are reached by vsock", e.want.VSock)
}

func (e exam) tun() finding {
	return e.wanted("/dev/net/tun", "load it ('modprobe tun') for guests on a bridge; the user network needs none", e.want.Bridge != "")
}

// wanted judges a device that some guests need.
func (e exam) wanted(device, fix string, needed bool) finding {
	if needed {
		return e.device(device, fail(fix, ""))
	}
	return e.device(device, warn(fix, ""))
}

// bridge looks for the guest's bridge, where it has one.
// Source: Linux 6.12, net/bridge/br_sysfs_br.c.
func (e exam) bridge() finding {
	name := e.want.Bridge
	if name == "" {
		return pass("none is wanted")
	}
	if _, err := e.host.ReadFile("/sys/class/net/" + name + "/bridge/stp_state"); err != nil {
		return fail(fmt.Sprintf("make it ('ip link add %s type bridge'), and allow it in /etc/qemu/bridge.conf", name), "%s: %v", name, err)
	}
	return pass("%s", name)
}
