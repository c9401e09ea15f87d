// Package measure computes the launch digest of an AMD SEV-SNP guest: what the
// AMD Secure Processor puts into MEASUREMENT when a VMM launches a given
// firmware with a given kernel, initrd, command line and set of vCPUs.
//
// It is pure: bytes in, Digest out. It does not check who made the bytes, that
// the firmware compares the kernel with the hash table (the generic build of
// OVMF has a table and no one who reads it), or that a launch is wise.
// docs/measurement.md tells how the digest comes about.
package measure

import (
	"errors"
	"fmt"
)

// VMM is the virtual machine monitor whose way of launching is reproduced.
type VMM int

// The VMMs. The zero value is none.
const (
	_    VMM = iota
	QEMU     // QEMU 9.1 and later with KVM of Linux 6.11 and later
)

// ParseVMM reads a VMM's name: "qemu".
func ParseVMM(name string) (VMM, error) {
	if name == QEMU.String() {
		return QEMU, nil
	}
	return 0, fmt.Errorf("unknown VMM %q, want qemu", name)
}

func (v VMM) String() string {
	if v == QEMU {
		return "qemu"
	}
	return fmt.Sprintf("VMM %d", int(v))
}

// MarshalText returns the VMM's name.
func (v VMM) MarshalText() ([]byte, error) {
	if v != QEMU {
		return nil, fmt.Errorf("%v has no name", v)
	}
	return []byte(v.String()), nil
}

// UnmarshalText reads a VMM's name.
func (v *VMM) UnmarshalText(text []byte) error {
	parsed, err := ParseVMM(string(text))
	if err != nil {
		return err
	}
	*v = parsed
	return nil
}

// MaxVCPUs is the largest number of vCPUs that is measured: a bound of ours,
// above what one socket of an EPYC has today. QEMU's q35 would take 4096.
const MaxVCPUs = 512

// Shape is what of a virtual machine enters the digest beside the bytes that it
// boots. The launcher builds QEMU's command line from the same value.
type Shape struct {
	VMM   VMM
	VCPUs int // 1 to MaxVCPUs; those that exist at launch, not maxcpus
	CPU   CPU
	// GuestFeatures is SEV_FEATURES of every VMSA; bit 0, SNPActive, is set in
	// every SNP guest. QEMU with upstream KVM gives SNPActive alone.
	GuestFeatures uint64
}

// SNPActive is bit 0 of SEV_FEATURES.
// Source: AMD 24593 rev 3.42 (APM volume 2), table B-4, offset 0x3B0.
const SNPActive = 1 << 0

// knownFeatures are the bits of SEV_FEATURES that the APM names for guests:
// SNPActive to SecureTSC (0–9), VmgexitParameter (10), IbsVirtualization (12),
// VmsaRegProt (14), SmtProtection (15), SecureAvic (16), IbpbOnEntry (21).
// Source: as for SNPActive.
const knownFeatures = 0x3ff | 1<<10 | 1<<12 | 1<<14 | 1<<15 | 1<<16 | 1<<21

// Check reports everything that keeps the shape from being measured, joined.
func (s Shape) Check() error {
	var errs []error
	if s.VMM != QEMU {
		errs = append(errs, fmt.Errorf("VMM: %v is not one that can be measured", s.VMM))
	}
	if s.VCPUs < 1 || s.VCPUs > MaxVCPUs {
		errs = append(errs, fmt.Errorf("vCPUs: %d is not between 1 and %d", s.VCPUs, MaxVCPUs))
	}
	if s.CPU.Signature == 0 {
		errs = append(errs, errors.New("CPU: no signature"))
	}
	if s.GuestFeatures&SNPActive == 0 {
		errs = append(errs, fmt.Errorf("guest features: %#x has SNPActive (bit 0) clear: not an SNP guest", s.GuestFeatures))
	}
	if unknown := s.GuestFeatures &^ knownFeatures; unknown != 0 {
		errs = append(errs, fmt.Errorf("guest features: %#x has unknown bits %#x", s.GuestFeatures, unknown))
	}
	return errors.Join(errs...)
}

// Measure returns the launch digest of firmware launched in that shape. Nil
// hashes stand for kernel-hashes=off: the digest then says nothing about the
// kernel. With hashes, the firmware must have a place for the hash table.
//
// The order is QEMU's: the firmware, its SEV metadata sections as they stand,
// then one VMSA for each vCPU.
// Source: QEMU 10.0.2, target/i386/sev.c; Linux 6.12, arch/x86/kvm/svm/sev.c.
func Measure(fw *Firmware, hashes *KernelHashes, shape Shape) (Digest, error) {
	if err := shape.Check(); err != nil {
		return Digest{}, fmt.Errorf("measuring: %w", err)
	}
	if fw == nil {
		return Digest{}, errors.New("measuring: no firmware")
	}
	if hashes != nil && !fw.takesHashes {
		return Digest{}, fmt.Errorf("measuring: the firmware has no place for kernel hashes: it has %s", fw.whyNoHashes())
	}
	digest := fw.digest
	for _, s := range fw.sections {
		digest = digest.section(s, fw, hashes)
	}
	return digest.vCPUs(fw.resetVector, shape), nil
}

// section adds the pages of a metadata section.
func (d Digest) section(s Section, fw *Firmware, hashes *KernelHashes) Digest {
	pageType := s.Type.pageType()
	if s.Type == SectionKernelHashes && hashes != nil {
		pageType = PageNormal
	}
	for gpa := uint64(s.GPA); gpa < uint64(s.GPA)+uint64(s.Size); gpa += PageSize {
		var contents Digest
		if pageType == PageNormal {
			contents = hashPage(hashes.page(fw.hashTable, gpa))
		}
		d = d.Extend(PageInfo{Contents: contents, Type: pageType, GPA: gpa})
	}
	return d
}

// vCPUs adds the VMSAs: the boot processor's, then the others', which are alike.
func (d Digest) vCPUs(resetVector uint32, shape Shape) Digest {
	d = d.Extend(PageInfo{Contents: hashPage(vmsa(bspReset, shape)), Type: PageVMSA, GPA: vmsaGPA})
	if shape.VCPUs == 1 {
		return d
	}
	ap := hashPage(vmsa(resetVector, shape))
	for range shape.VCPUs - 1 {
		d = d.Extend(PageInfo{Contents: ap, Type: PageVMSA, GPA: vmsaGPA})
	}
	return d
}
