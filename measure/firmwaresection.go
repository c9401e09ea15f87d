package measure

import (
	"fmt"
	"strconv"
	"strings"
)

// Section is a range of guest memory that the firmware wants prepared: whole
// pages, below the firmware's image.
type Section struct {
	GPA  uint32      `json:"gpa"`
	Size uint32      `json:"size"` // bytes
	Type SectionType `json:"type"`
}

// SectionType is what a section of the SEV metadata is for.
type SectionType uint32

// The section types. QEMU takes every other value as well, and zeroes the
// section, as it does with SectionMemory and SectionCAA.
// Source: edk2 2025.02, OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
const (
	SectionMemory       SectionType = 1    // zeroed memory
	SectionSecrets      SectionType = 2    // keys for talking to the secure processor
	SectionCPUID        SectionType = 3    // CPUID values, checked by the secure processor
	SectionCAA          SectionType = 4    // calling area of an SVSM; zeroed
	SectionKernelHashes SectionType = 0x10 // page with the SEV hash table
)

// sectionNames are edk2's, without its prefix.
func sectionName(t SectionType) (string, bool) {
	switch t {
	case SectionMemory:
		return "SNP_SEC_MEM", true
	case SectionSecrets:
		return "SNP_SECRETS", true
	case SectionCPUID:
		return "CPUID", true
	case SectionCAA:
		return "SVSM_CAA", true
	case SectionKernelHashes:
		return "SNP_KERNEL_HASHES", true
	default:
		return "", false
	}
}

// Known reports whether edk2 and QEMU name the type.
func (t SectionType) Known() bool {
	_, ok := sectionName(t)
	return ok
}

// String returns edk2's name, or the number of a type that has none, as 0x9.
func (t SectionType) String() string {
	if name, ok := sectionName(t); ok {
		return name
	}
	return fmt.Sprintf("%#x", uint32(t))
}

// ParseSectionType reads what String writes: a name, or the number of a type
// that has none.
func ParseSectionType(s string) (SectionType, error) {
	for _, t := range []SectionType{SectionMemory, SectionSecrets, SectionCPUID, SectionCAA, SectionKernelHashes} {
		if s == t.String() {
			return t, nil
		}
	}
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		n, err := strconv.ParseUint(digits, 16, 32)
		if t := SectionType(n); err == nil && t.String() == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("unknown section type %.100q", s)
}

// MarshalText returns what String does.
func (t SectionType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText returns.
func (t *SectionType) UnmarshalText(text []byte) error {
	parsed, err := ParseSectionType(string(text))
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

// pageType is QEMU's choice of page type: SectionKernelHashes is zeroed where
// there are no hashes (see Measure), and so is what QEMU does not know.
// Source: QEMU 10.0.2, target/i386/sev.c, snp_metadata_desc_to_page_type.
func (t SectionType) pageType() PageType {
	switch t {
	case SectionSecrets:
		return PageSecrets
	case SectionCPUID:
		return PageCPUID
	default:
		return PageZero
	}
}
