package measure

import (
	"fmt"
	"strings"
)

// Problem is something that is wrong with a firmware image.
type Problem struct {
	Code   ProblemCode `json:"code"`
	Effect Effect      `json:"effect"`
	What   string      `json:"what"`
	// The bytes of the image that it is about, Start up to End; both 0 where it
	// is about none.
	Start       uint32 `json:"start,omitempty"`
	End         uint32 `json:"end,omitempty"`
	Consequence string `json:"consequence"`
}

// Error returns bytes, problem and consequence.
func (p Problem) Error() string {
	text := p.What + ": " + p.Consequence
	if p.End != 0 {
		return fmt.Sprintf("[%#x:%#x]: %s", p.Start, p.End, text)
	}
	return text
}

// FirmwareError is everything that keeps a firmware from being launched, and
// what else is wrong with it.
type FirmwareError struct {
	Problems []Problem // at least one has EffectRefused
}

// Error has a line for each problem.
func (e *FirmwareError) Error() string {
	if len(e.Problems) == 1 {
		return "firmware: " + e.Problems[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "firmware: %d problems", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  ")
		b.WriteString(p.Error())
	}
	return b.String()
}

// Effect is what becomes of a launch.
type Effect int

// The effects. The zero value is none.
const (
	_              Effect = iota
	EffectRefused         // no launch with SEV-SNP, or none that is measured here
	EffectNoHashes        // a launch without kernel hashes only: the digest says nothing about the kernel
	EffectNotice          // a launch that is measured as QEMU makes it
)

// ParseEffect reads what String writes.
func ParseEffect(s string) (Effect, error) {
	for _, e := range []Effect{EffectRefused, EffectNoHashes, EffectNotice} {
		if s == e.String() {
			return e, nil
		}
	}
	return 0, fmt.Errorf("unknown effect %.100q", s)
}

func (e Effect) String() string {
	switch e {
	case EffectRefused:
		return "refused"
	case EffectNoHashes:
		return "no kernel hashes"
	case EffectNotice:
		return "notice"
	default:
		return fmt.Sprintf("effect %d", int(e))
	}
}

// MarshalText returns what String does.
func (e Effect) MarshalText() ([]byte, error) {
	if _, err := ParseEffect(e.String()); err != nil {
		return nil, err
	}
	return []byte(e.String()), nil
}

// UnmarshalText reads what MarshalText returns.
func (e *Effect) UnmarshalText(text []byte) error {
	parsed, err := ParseEffect(string(text))
	if err != nil {
		return err
	}
	*e = parsed
	return nil
}

// ProblemCode names a kind of problem. Codes are stable.
type ProblemCode string

// The kinds of problems. docs/firmware.md lists them.
const (
	ProblemSize               ProblemCode = "size"
	ProblemTooLarge           ProblemCode = "too-large"
	ProblemNoTable            ProblemCode = "no-table"
	ProblemTableLength        ProblemCode = "table-length"
	ProblemTableEntry         ProblemCode = "table-entry"
	ProblemNoResetVector      ProblemCode = "no-reset-vector"
	ProblemResetVectorSize    ProblemCode = "reset-vector-size"
	ProblemResetVectorZero    ProblemCode = "reset-vector-zero"
	ProblemNoMetadata         ProblemCode = "no-metadata"
	ProblemMetadataOffset     ProblemCode = "metadata-offset"
	ProblemMetadataSignature  ProblemCode = "metadata-signature"
	ProblemMetadataVersion    ProblemCode = "metadata-version"
	ProblemMetadataLength     ProblemCode = "metadata-length"
	ProblemMetadataCount      ProblemCode = "metadata-count"
	ProblemSectionEmpty       ProblemCode = "section-empty"
	ProblemSectionUnaligned   ProblemCode = "section-unaligned"
	ProblemSectionOverlap     ProblemCode = "section-overlap"
	ProblemSectionOverImage   ProblemCode = "section-over-image"
	ProblemSectionsTooLarge   ProblemCode = "sections-too-large"
	ProblemSectionType        ProblemCode = "section-type"
	ProblemNoSecrets          ProblemCode = "no-secrets-section"
	ProblemNoCPUID            ProblemCode = "no-cpuid-section"
	ProblemNoHashTable        ProblemCode = "no-hash-table"
	ProblemHashTableArea      ProblemCode = "hash-table-area"
	ProblemNoHashSection      ProblemCode = "no-hash-section"
	ProblemHashSectionTwice   ProblemCode = "hash-section-twice"
	ProblemHashTableElsewhere ProblemCode = "hash-table-elsewhere"
)

// problemKind is what all problems with one code have in common.
type problemKind struct {
	code        ProblemCode
	effect      Effect
	consequence string
}

// problemKinds says what QEMU does. Sources: QEMU 10.0.2, hw/i386/x86-common.c
// (x86_bios_rom_init), hw/i386/pc_sysfw_ovmf.c, target/i386/sev.c.
func problemKinds() []problemKind {
	return []problemKind{
		{ProblemSize, EffectRefused, "QEMU stops, as -bios takes multiples of 64 KiB, and pflash does not do for SEV-SNP"},
		{ProblemTooLarge, EffectRefused, "it is not measured here"},
		{ProblemNoTable, EffectRefused, "QEMU stops, as it finds no reset vector: not a firmware for SEV"},
		{ProblemTableLength, EffectRefused, "QEMU ignores the table, and stops as it finds no reset vector"},
		{ProblemTableEntry, EffectNotice, "QEMU stops reading the table here, and so do we; what is farther from its footer does not count"},
		{ProblemNoResetVector, EffectRefused, "QEMU stops, as it finds no reset vector: the vCPUs beside the first could not start"},
		{ProblemResetVectorSize, EffectRefused, "QEMU would read beyond the entry"},
		{ProblemResetVectorZero, EffectRefused, "QEMU stops, as the reset vector is zero"},
		{ProblemNoMetadata, EffectRefused, "QEMU stops, as it finds no SEV metadata: not a firmware for SEV-SNP"},
		{ProblemMetadataOffset, EffectRefused, "QEMU would read outside of the image"},
		{ProblemMetadataSignature, EffectRefused, "QEMU ignores the metadata, and stops as it finds none"},
		{ProblemMetadataVersion, EffectRefused, "QEMU does not look at the version, but nobody has defined this one: it is not measured here"},
		{ProblemMetadataLength, EffectRefused, "QEMU ignores the metadata, and stops as it finds none"},
		{ProblemMetadataCount, EffectRefused, "QEMU would take what stands behind the metadata for sections, or there are more than are measured here"},
		{ProblemSectionEmpty, EffectRefused, "QEMU stops, as there is no memory of no size"},
		{ProblemSectionUnaligned, EffectRefused, "QEMU stops, as KVM takes whole pages only"},
		{ProblemSectionOverlap, EffectRefused, "QEMU stops, as KVM takes a page but once"},
		{ProblemSectionOverImage, EffectRefused, "QEMU stops, as KVM takes a page but once and the firmware is there, or as no memory is there"},
		{ProblemSectionsTooLarge, EffectRefused, "it is not measured here"},
		{ProblemSectionType, EffectNotice, "QEMU zeroes the section, whatever the firmware expects: it is measured so"},
		{ProblemNoSecrets, EffectNotice, "the guest could be launched, but could not ask the secure processor for a report"},
		{ProblemNoCPUID, EffectNotice, "the guest could be launched, but without CPUID values that the secure processor has checked"},
		{ProblemNoHashTable, EffectNoHashes, "QEMU stops when kernel hashes are asked for; without them the guest could be launched, but the kernel would not be measured"},
		{ProblemHashTableArea, EffectNoHashes, "QEMU stops when kernel hashes are asked for; without them the guest could be launched, but the kernel would not be measured"},
		{ProblemNoHashSection, EffectNoHashes, "the guest could be launched, but QEMU would put the hash table nowhere: the kernel would not be measured"},
		{ProblemHashSectionTwice, EffectNoHashes, "QEMU would put the hash table into both sections; such a launch is not measured here"},
		{ProblemHashTableElsewhere, EffectNoHashes, "QEMU stops or puts the table elsewhere in the measured page: the firmware would read memory that nothing measures"},
	}
}

// span is a range of the image's bytes.
type span struct{ start, end int }

// findings collects problems.
type findings struct{ problems []Problem }

func (f *findings) add(code ProblemCode, at span, format string, args ...any) {
	for _, k := range problemKinds() {
		if k.code == code {
			f.problems = append(f.problems, Problem{
				Code: code, Effect: k.effect, Consequence: k.consequence,
				What: fmt.Sprintf(format, args...), Start: uint32(at.start), End: uint32(at.end),
			})
		}
	}
}

// err returns a *FirmwareError if a problem keeps the firmware from being launched.
func (f *findings) err() error {
	for _, p := range f.problems {
		if p.Effect == EffectRefused {
			return &FirmwareError{Problems: f.problems}
		}
	}
	return nil
}
