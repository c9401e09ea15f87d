package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Model-specific registers.
// Source: AMD 24593 (APM vol. 2), sections 7.10.1 (SYSCFG) and 15.36.4 (RMP);
// the layout of a segmented RMP: section 15.36.4.2.
const (
	msrSYSCFG  = 0xc0010010
	msrRMPBase = 0xc0010132
	msrRMPEnd  = 0xc0010133
	msrRMPCfg  = 0xc0010136

	syscfgSME = 1 << 23
	syscfgSNP = 1 << 24

	rmpSegmented = 1 << 0 // of RMP_CFG
	// The RMP starts with what the processor keeps for itself. Then come 16
	// bytes for each page of 4096.
	rmpBookkeeping = 16 << 10
	rmpEntry       = 16
	// Bits 51:13 are the address.
	rmpAddress = 1<<52 - 1<<13
)

const (
	fixMSR      = "load the msr module ('modprobe msr') and run as root; it only explains what other checks find"
	fixSMEE     = "enable SMEE in the BIOS (CBS, CPU options)"
	fixSNP      = "enable 'SEV-SNP Support' and 'IOMMU' in the BIOS (CBS, NBIO options); then Linux sets it at boot: see 'dmesg | grep -i -e sev -e snp -e rmp'"
	fixRMP      = "set 'SNP Memory (RMP Table) Coverage' to Enabled in the BIOS (CBS, CPU options)"
	fixCoverage = "set 'SNP Memory (RMP Table) Coverage' to Enabled in the BIOS: with Custom it covers only as much memory as is typed in"
)

func (e exam) sme() finding {
	return e.syscfg(syscfgSME, "memory encryption", fixSMEE)
}

func (e exam) snpEnabled() finding {
	return e.syscfg(syscfgSNP, "SEV-SNP", fixSNP)
}

func (e exam) syscfg(bit uint64, what, fix string) finding {
	if _, err := encryption(e.host); err != nil {
		return skip("cpu")
	}
	v, err := e.host.MSR(msrSYSCFG)
	if err != nil {
		return unknown(fixMSR, err)
	}
	state := "off"
	if v&bit != 0 {
		state = "on"
	}
	return passIf(v&bit != 0, fix, "%s is %s: SYSCFG is %#x", what, state, v)
}

// rmpRange reads where the RMP is.
func (e exam) rmpRange() (base, end uint64, err error) {
	base, errBase := e.host.MSR(msrRMPBase)
	end, errEnd := e.host.MSR(msrRMPEnd)
	return base, end, errors.Join(errBase, errEnd)
}

func (e exam) rmp() finding {
	if r, err := encryption(e.host); err != nil || r[0]>>4&1 == 0 {
		return skip("cpu.sev-snp")
	}
	base, end, err := e.rmpRange()
	if err != nil {
		return unknown(fixMSR, err)
	}
	if base&rmpAddress == 0 || end&rmpAddress == 0 || base >= end {
		return fail(fixRMP, "the BIOS reserved no memory for it: RMP_BASE is %#x, RMP_END %#x", base, end)
	}
	return pass("%#x to %#x", base, end)
}

func (e exam) rmpCoverage() finding {
	if e.rmp().outcome != Pass {
		return skip("rmp")
	}
	// Only processors with a segmented RMP have this register.
	if cfg, err := e.host.MSR(msrRMPCfg); err == nil && cfg&rmpSegmented != 0 {
		return pass("a segmented table, which has a part for each stretch of memory")
	}
	base, end, err := e.rmpRange()
	if err != nil || end-base+1 < rmpBookkeeping {
		return fail(fixRMP, "%d bytes are too few", end-base+1)
	}
	covered := (end - base + 1 - rmpBookkeeping) / rmpEntry * 4096
	iomem, err := e.host.ReadFile("/proc/iomem")
	if err != nil {
		return unknown("run as root; Linux refuses a table that is too small by itself", err)
	}
	top, ok := topOfRAM(iomem)
	if !ok {
		return unknown("run as root; Linux refuses a table that is too small by itself", errors.New("/proc/iomem hides its addresses"))
	}
	return passIf(covered >= top, fixCoverage, "covers memory up to %s of %s", gib(covered), gib(top))
}

// topOfRAM returns the first address behind all RAM. Who may not know sees zeros.
func topOfRAM(iomem string) (uint64, bool) {
	top := uint64(0)
	for line := range strings.Lines(iomem) {
		at, what, _ := strings.Cut(strings.TrimSpace(line), " : ")
		if what != "System RAM" {
			continue
		}
		_, end, _ := strings.Cut(at, "-")
		n, err := strconv.ParseUint(end, 16, 64)
		if err != nil {
			return 0, false
		}
		top = max(top, n)
	}
	return top + 1, top > 0
}

func gib(n uint64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

// minKernel is the first Linux whose KVM launches SNP guests.
const minKernelMajor, minKernelMinor = 6, 11

func (e exam) kernel() finding {
	release, err := e.host.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return unknown("mount /proc", err)
	}
	release = strings.TrimSpace(release)
	major, minor, ok := kernelVersion(release)
	new := ok && (major > minKernelMajor || major == minKernelMajor && minor >= minKernelMinor)
	return passIf(new, "install Linux 6.11 or later: the first whose KVM launches SEV-SNP guests", "Linux %s", release)
}

func kernelVersion(release string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimSpace(release), ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	digits, _, _ := strings.Cut(parts[1], "-")
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(digits)
	return major, minor, err1 == nil && err2 == nil
}

const iommuGroups = "/sys/kernel/iommu_groups"

func (e exam) iommu() finding {
	const fix = "enable 'IOMMU' in the BIOS (CBS, NBIO options), and take iommu=off and amd_iommu=off off the kernel's command line"
	groups, err := e.host.ReadDir(iommuGroups)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unknown("mount /sys", err)
	}
	return passIf(len(groups) > 0, fix, "%d groups", len(groups))
}

// iommuTranslation checks what Linux does before it enables SNP: translation, by
// page tables of version 1.
// Source: Linux 6.12, drivers/iommu/amd/init.c, iommu_snp_enable.
func (e exam) iommuTranslation() finding {
	if e.iommu().outcome != Pass {
		return skip("iommu")
	}
	line, err := e.host.ReadFile("/proc/cmdline")
	if err != nil {
		return unknown("mount /proc", err)
	}
	for _, word := range strings.Fields(line) {
		switch word {
		case "iommu=pt", "iommu.passthrough=1", "iommu.passthrough=on", "iommu.passthrough=y", "amd_iommu=pgtbl_v2":
			return fail("take it off the kernel's command line (/etc/default/grub), and boot again", "the kernel was booted with %s", word)
		}
	}
	if identity, all := e.identityGroups(); all > 0 && identity == all {
		return fail("boot with iommu.passthrough=0: this kernel passes devices through by default", "all %d groups are passed through", all)
	}
	return pass("on")
}

// identityGroups counts the groups whose devices see physical addresses. A few
// may, whatever the default.
func (e exam) identityGroups() (identity, all int) {
	groups, err := e.host.ReadDir(iommuGroups)
	if err != nil {
		return 0, 0
	}
	for _, group := range groups {
		kind, err := e.host.ReadFile(iommuGroups + "/" + group + "/type")
		if err != nil {
			continue
		}
		all++
		if strings.TrimSpace(kind) == "identity" {
			identity++
		}
	}
	return identity, all
}

func (e exam) memlock() finding {
	const fix = "raise it ('ulimit -l', LimitMEMLOCK= of a unit) before host devices are passed through; without them SEV-SNP locks none"
	limit, err := e.host.Memlock()
	if err != nil {
		return unknown("", err)
	}
	switch {
	case limit == 1<<64-1:
		return pass("unlimited")
	case limit < uint64(e.want.MemoryMiB)<<20:
		return warn(fix, "%d KiB of locked memory, less than the guest's %d MiB", limit>>10, e.want.MemoryMiB)
	}
	return pass("%d KiB", limit>>10)
}
