package measure

import (
	"fmt"
	"strings"
)

// Profile is a VMM, at a version, as a way of launching: what it adds to the
// digest and in which order. The zero value is none.
type Profile uint8

// The profiles. Profiles and Describe tell what each stands for.
const (
	_ Profile = iota
	QEMU
	QEMUAMD66
	QEMUAMD65
	EC2v2026
	EC2v2023
	GCEGenoa
	GCEMilan
	SVSM
	SVSMNoFPU
	QEMUSEVESInit2
	QEMUSEVES
	QEMUSEV
	profiles // their number, and one
)

// Technology is the generation of SEV that a profile launches with.
type Technology uint8

// The technologies. Only SEV-SNP has a digest that a report shows.
const (
	_ Technology = iota
	TechnologySEV
	TechnologySEVES
	TechnologySNP
)

func (t Technology) String() string {
	switch t {
	case TechnologySEV:
		return "SEV"
	case TechnologySEVES:
		return "SEV-ES"
	case TechnologySNP:
		return "SEV-SNP"
	default:
		return fmt.Sprintf("technology %d", uint8(t))
	}
}

// Description is what a profile stands for.
type Description struct {
	Name, Version string
	Technology    Technology
	Host          string // the hosts that launch so
	GuestFeatures uint64 // SEV_FEATURES where nothing else is asked for
	Differs       string // from qemu@6.11
	Source        string
}

// profile is a profile's description, and what it changes in the chain.
type profile struct {
	Description
	byDefault   bool // the version that its name alone stands for
	memory      PageType
	cpuidLast   bool   // the CPUID page is added after all other sections
	vmsaGPA     uint64 // of every VMSA
	directBoot  bool   // can be launched with a kernel, and its hashes
	svsm        bool   // takes an SVSM's image beside the firmware's
	fixedRDX    bool   // RDX is rdx, whatever the CPU
	rdx         uint64
	bspCS, apCS uint16 // attributes
	ss, tr      uint16 // attributes
	pat         uint64
	fpu         bool // MXCSR and X87_FCW have their values at reset, not 0
}

const (
	// gpa48 is −1 as a processor of 48 address bits pages it: KVM gives it to
	// every VMSA on every processor.
	// Source: Linux 6.12, arch/x86/kvm/svm/svm.h, INITIAL_VMSA_GPA.
	gpa48 = 0x0000_ffff_ffff_f000
	// gpa52 is the same on a processor of 52 address bits.
	gpa52 = 0x000f_ffff_ffff_f000

	resetPAT = 0x0007040600070406
)

// qemu is the profile that the others differ from.
var qemu = profile{
	Description: Description{
		Name: "qemu", Version: "6.11", Technology: TechnologySNP, GuestFeatures: SNPActive,
		Host:    "QEMU 9.1 and later; KVM of Linux 6.11 and later, or AMD's 6.9-rc7-snp",
		Differs: "nothing",
		Source:  "QEMU 10.0.2 target/i386/sev.c; Linux 6.12 arch/x86/kvm/svm/sev.c",
	},
	byDefault: true, memory: PageZero, vmsaGPA: gpa48, directBoot: true,
	bspCS: 0x9b, apCS: 0x9b, ss: 0x93, tr: 0x8b, pat: resetPAT, fpu: true,
}

// with returns p, changed and described.
func (p profile) with(d Description, change func(*profile)) profile {
	p.Description = d
	p.byDefault = false
	change(&p)
	return p
}

func ec2(p *profile) {
	p.cpuidLast, p.directBoot, p.fixedRDX, p.fpu = true, false, true, false
	p.bspCS, p.ss, p.tr = 0x9a, 0x92, 0x83
}

func gce(p *profile) {
	p.memory, p.directBoot, p.fixedRDX, p.rdx, p.fpu = PageUnmeasured, false, true, 0x600, false
	p.pat = 0x00070106
}

func svsm(p *profile) { p.svsm, p.directBoot = true, false }

const (
	gceSource  = "gce-tcb-verifier 74582c07, sev/ld_from_ovmf.go and sev/measurement.go"
	ec2Source  = "sev-snp-measure 8f2b337e, sevsnpmeasure/vmsa.py, from reports of EC2 guests"
	svsmSource = "sev-snp-measure 8f2b337e, sevsnpmeasure/guest.py; Coconut's QEMU 8.0 target/i386/sev.c"
)

// catalogue holds every profile.
var catalogue = [profiles]profile{
	QEMU: qemu,
	QEMUAMD66: qemu.with(Description{
		Name: "qemu", Version: "6.6-amd", Technology: TechnologySNP, GuestFeatures: SNPActive | DebugSwap,
		Host:    "AMD's QEMU and SNP kernels 6.6 to 6.8-rc, on processors with DebugSwap (Genoa and later)",
		Differs: "no FPU state in the VMSA; DebugSwap (0x20) set unless kvm_amd.debug_swap=0",
		Source:  "sev-snp-measure's changes 0.0.9 and 0.0.10; Linux 6.12 commit history of sev_es_sync_vmsa",
	}, func(p *profile) { p.fpu = false }),
	QEMUAMD65: qemu.with(Description{
		Name: "qemu", Version: "6.5-amd", Technology: TechnologySNP, GuestFeatures: SNPActive,
		Host:    "AMD's QEMU and SNP kernels before 6.6; 6.6 to 6.8-rc on Milan",
		Differs: "no FPU state in the VMSA",
		Source:  "sev-snp-measure's changes 0.0.9 and 0.0.10",
	}, func(p *profile) { p.fpu = false }),
	EC2v2026: qemu.with(Description{
		Name: "ec2", Version: "2026", Technology: TechnologySNP, GuestFeatures: SNPActive,
		Host:    "Amazon EC2 since early 2026",
		Differs: "CPUID page after all sections; RDX 0x600 whatever the CPU; other segment attributes; no FPU state",
		Source:  ec2Source,
	}, func(p *profile) { ec2(p); p.rdx, p.byDefault = 0x600, true }),
	EC2v2023: qemu.with(Description{
		Name: "ec2", Version: "2023", Technology: TechnologySNP, GuestFeatures: SNPActive,
		Host:    "Amazon EC2 until early 2026",
		Differs: "as ec2@2026, and RDX 0",
		Source:  ec2Source,
	}, ec2),
	GCEGenoa: qemu.with(Description{
		Name: "gce", Version: "genoa", Technology: TechnologySNP, GuestFeatures: SNPActive,
		Host:    "Google Compute Engine on Genoa",
		Differs: "as gce@milan, and VMSAs at 0xffffffffff000: 52 address bits",
		Source:  gceSource,
	}, func(p *profile) { gce(p); p.vmsaGPA = gpa52 }),
	GCEMilan: qemu.with(Description{
		Name: "gce", Version: "milan", Technology: TechnologySNP, GuestFeatures: SNPActive,
		Host:    "Google Compute Engine on Milan",
		Differs: "memory sections are UNMEASURED pages; RDX 0x600 whatever the CPU; another PAT; no FPU state",
		Source:  gceSource,
	}, gce),
	SVSM: qemu.with(Description{
		Name: "svsm", Version: "2024", Technology: TechnologySNP, GuestFeatures: SNPActive,
		Host:    "Coconut SVSM as an image beside the firmware (not IGVM); kernels that save FPU state (since 6.10)",
		Differs: "SVSM's pages after the firmware's; its sections; every vCPU starts in protected mode in the SVSM",
		Source:  svsmSource,
	}, func(p *profile) { svsm(p); p.byDefault = true }),
	SVSMNoFPU: qemu.with(Description{
		Name: "svsm", Version: "2023", Technology: TechnologySNP, GuestFeatures: SNPActive,
		Host:    "as svsm@2024, on kernels before 6.10",
		Differs: "as svsm@2024, and no FPU state in the VMSA",
		Source:  svsmSource,
	}, func(p *profile) { svsm(p); p.fpu = false }),
	QEMUSEVESInit2: qemu.with(Description{
		Name: "qemu-sev-es", Version: "6.10", Technology: TechnologySEVES,
		Host:    "QEMU with legacy-vm-type=off; KVM of Linux 6.10 and later (KVM_SEV_INIT2)",
		Differs: "SHA-256 over firmware, hash table and VMSAs",
		Source:  "Linux 6.12 arch/x86/kvm/svm/sev.c, sev_es_sync_vmsa; SEV API (AMD 55766 rev 3.24) section 6.5.1",
	}, func(*profile) {}),
	QEMUSEVES: qemu.with(Description{
		Name: "qemu-sev-es", Version: "5.11", Technology: TechnologySEVES,
		Host:    "QEMU with its default, KVM_SEV_ES_INIT; KVM of Linux 5.11 and later",
		Differs: "SHA-256 over firmware, hash table and VMSAs; no FPU state in the VMSA",
		Source:  "QEMU 10.0.2 target/i386/sev.c, legacy_vm_type; Linux 6.12 arch/x86/kvm/svm/sev.c",
	}, func(p *profile) { p.fpu, p.byDefault = false, true }),
	QEMUSEV: qemu.with(Description{
		Name: "qemu-sev", Version: "4.16", Technology: TechnologySEV,
		Host:    "QEMU; KVM of Linux 4.16 and later",
		Differs: "SHA-256 over firmware and hash table; no vCPU is measured",
		Source:  "SEV API (AMD 55766 rev 3.24) section 6.5.1",
	}, func(p *profile) { p.byDefault = true }),
}

// Profiles are all of them, QEMU first.
func Profiles() []Profile {
	all := make([]Profile, 0, profiles-1)
	for p := QEMU; p < profiles; p++ {
		all = append(all, p)
	}
	return all
}

// ParseProfile reads NAME@VERSION, or NAME alone where one version of it is the
// usual one. The error is an *UnknownError.
func ParseProfile(s string) (Profile, error) {
	name, version, versioned := strings.Cut(s, "@")
	var names []string
	for _, p := range Profiles() {
		d := catalogue[p]
		if d.Name == name && (versioned && d.Version == version || !versioned && d.byDefault) {
			return p, nil
		}
		names = append(names, p.String())
	}
	return 0, newUnknownError("VMM", s, names)
}

// Describe returns what p stands for; it is empty for an unknown profile.
func (p Profile) Describe() Description {
	if !p.known() {
		return Description{}
	}
	return catalogue[p].Description
}

func (p Profile) known() bool { return p > 0 && p < profiles }

// MeasuresCPU reports whether the CPU's signature enters the digest.
func (p Profile) MeasuresCPU() bool {
	return p.known() && !catalogue[p].fixedRDX && catalogue[p].Technology != TechnologySEV
}

// TakesKernel reports whether the VMM loads a kernel itself, with its hashes.
func (p Profile) TakesKernel() bool { return p.known() && catalogue[p].directBoot }

// String returns NAME@VERSION.
func (p Profile) String() string {
	if !p.known() {
		return fmt.Sprintf("profile %d", uint8(p))
	}
	return catalogue[p].Name + "@" + catalogue[p].Version
}

// MarshalText returns NAME@VERSION.
func (p Profile) MarshalText() ([]byte, error) {
	if !p.known() {
		return nil, fmt.Errorf("%v has no name", p)
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads NAME@VERSION. A name without a version is refused: what is
// written down must mean the same tomorrow.
func (p *Profile) UnmarshalText(text []byte) error {
	parsed, err := ParseProfile(string(text))
	if err != nil {
		return err
	}
	if parsed.String() != string(text) {
		return fmt.Errorf("VMM %q: no version, want %v", text, parsed)
	}
	*p = parsed
	return nil
}
