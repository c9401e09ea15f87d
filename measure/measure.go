// Package measure computes the launch digest of an AMD SEV-SNP guest: what the
// AMD Secure Processor puts into MEASUREMENT when a VMM launches a given
// firmware with a given kernel, initrd, command line and set of vCPUs.
//
// ParseFirmware, HashKernel and a Shape lead to a digest by Measure, to many by
// Matrix, and to an account of each step by Steps. Errors that a caller may want
// to tell apart are a *FirmwareError, a *ShapeError, an *UnknownError and
// ErrNoHashTable.
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

// MaxVCPUs is the largest number of vCPUs that is measured: a bound of ours,
// above what one socket of an EPYC has today. QEMU's q35 would take 4096.
const MaxVCPUs = 512

// Shape is what of a virtual machine enters the digest beside the bytes that it
// boots. The launcher builds QEMU's command line from the same value.
type Shape struct {
	VMM   Profile
	VCPUs int // 1 to MaxVCPUs; those that exist at launch, not maxcpus
	CPU   CPU // may be zero where the VMM gives every CPU the same state
	// GuestFeatures is SEV_FEATURES of every VMSA; bit 0, SNPActive, is set in
	// every SNP guest. QEMU with upstream KVM gives SNPActive alone.
	GuestFeatures uint64
}

// Bits of SEV_FEATURES. Source: AMD 24593 rev 3.42 (APM volume 2), table B-4,
// offset 0x3B0.
const (
	SNPActive = 1 << 0
	DebugSwap = 1 << 5
)

// KnownFeatures are the bits of SEV_FEATURES that the APM names for guests:
// SNPActive to SecureTSC (0–9), VmgexitParameter (10), IbsVirtualization (12),
// VmsaRegProt (14), SmtProtection (15), SecureAvic (16), IbpbOnEntry (21).
// Source: as for SNPActive.
const KnownFeatures = 0x3ff | 1<<10 | 1<<12 | 1<<14 | 1<<15 | 1<<16 | 1<<21

// ShapeError says which field of a Shape cannot be measured.
type ShapeError struct {
	Field  string // "VMM", "vCPUs", "CPU", "guest features"
	Reason string
}

func (e *ShapeError) Error() string { return e.Field + ": " + e.Reason }

// Check reports everything that keeps the shape from being measured, each a
// *ShapeError, joined.
func (s Shape) Check() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, &ShapeError{field, fmt.Sprintf(format, args...)})
	}
	if !s.VMM.known() {
		bad("VMM", "%v is not one that can be measured", s.VMM)
	}
	if s.VCPUs < 1 || s.VCPUs > MaxVCPUs {
		bad("vCPUs", "%d is not between 1 and %d", s.VCPUs, MaxVCPUs)
	}
	if s.CPU.Signature == 0 && s.VMM.MeasuresCPU() {
		bad("CPU", "no signature")
	}
	if s.VMM.known() {
		snp := catalogue[s.VMM].Technology == TechnologySNP
		if snp && s.GuestFeatures&SNPActive == 0 {
			bad("guest features", "%#x has SNPActive (bit 0) clear: not an SNP guest", s.GuestFeatures)
		}
		if !snp && s.GuestFeatures&SNPActive != 0 {
			bad("guest features", "%#x has SNPActive (bit 0) set: %v launches no SNP guest", s.GuestFeatures, s.VMM)
		}
	}
	if unknown := s.GuestFeatures &^ KnownFeatures; unknown != 0 {
		bad("guest features", "%#x has unknown bits %#x", s.GuestFeatures, unknown)
	}
	return errors.Join(errs...)
}

// ErrNoHashTable says that the firmware has no place for kernel hashes: it cannot
// be launched with them.
var ErrNoHashTable = errors.New("the firmware has no place for kernel hashes")

// Measure returns the launch digest of firmware launched in that shape. Nil
// hashes stand for kernel-hashes=off: the digest then says nothing about the
// kernel. With hashes, the firmware must have a place for the hash table, else
// the error is ErrNoHashTable; that of a shape is a *ShapeError.
//
// The order is QEMU's: the firmware, its SEV metadata sections as they stand,
// then one VMSA for each vCPU. Profiles tells what other VMMs do.
// Source: QEMU 10.0.2, target/i386/sev.c; Linux 6.12, arch/x86/kvm/svm/sev.c.
func Measure(fw *Firmware, hashes *KernelHashes, shape Shape) (Digest, error) {
	if err := shape.Check(); err != nil {
		return Digest{}, fmt.Errorf("measuring: %w", err)
	}
	digest, err := fw.Prefix(hashes, shape.VMM)
	if err != nil {
		return Digest{}, err
	}
	bsp, ap := fw.VMSAs(shape)
	digest = digest.Extend(bsp)
	for range shape.VCPUs - 1 {
		digest = digest.Extend(ap)
	}
	return digest, nil
}

// Prefix returns the digest before the first vCPU is added, which is the same for
// every shape under p.
func (f *Firmware) Prefix(hashes *KernelHashes, p Profile) (Digest, error) {
	if err := f.launches(hashes, p); err != nil {
		return Digest{}, fmt.Errorf("measuring: %w", err)
	}
	digest := f.digest
	for _, s := range f.sectionSteps(hashes, catalogue[p]) {
		digest = s.After(digest)
	}
	return digest, nil
}

// VMSAs returns what the first vCPU of a shape adds, and what each other does.
func (f *Firmware) VMSAs(s Shape) (bsp, ap PageInfo) {
	gpa := uint64(gpa48)
	first := uint32(bspReset)
	if s.VMM.known() {
		gpa = catalogue[s.VMM].vmsaGPA
	}
	if f.svsm != nil {
		first = f.resetVector
	}
	bsp = PageInfo{Contents: hashPage(ResetVMSA(first, s)), Type: PageVMSA, GPA: gpa}
	if s.VCPUs == 1 || f.svsm != nil {
		return bsp, bsp
	}
	return bsp, PageInfo{Contents: hashPage(ResetVMSA(f.resetVector, s)), Type: PageVMSA, GPA: gpa}
}
