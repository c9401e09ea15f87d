package igvm

import (
	"encoding/binary"
	"fmt"
)

const magic = "IGVM"

// PlatformType is what a file can be loaded on.
type PlatformType uint8

// The platforms. Source: microsoft/igvm e6c3ff1c, igvm_defs, IgvmPlatformType.
const (
	PlatformNative PlatformType = iota
	PlatformVSM
	PlatformSNP
	PlatformTDX
	PlatformSEV
	PlatformSEVES
	PlatformCCA
	platforms // their number
)

func (t PlatformType) String() string {
	names := [platforms]string{"native", "VSM", "SEV-SNP", "TDX", "SEV", "SEV-ES", "CCA"}
	if t >= platforms {
		return fmt.Sprintf("platform %d", uint8(t))
	}
	return names[t]
}

// Platform is one that a file serves.
type Platform struct {
	Type PlatformType
	// Mask has the one bit by which later headers say that they concern it.
	Mask uint32
}

// kind is the type of a variable header.
type kind uint32

// The types of headers. Source: microsoft/igvm e6c3ff1c, igvm_defs,
// IgvmVariableHeaderType.
const (
	supportedPlatform kind = 0x001

	guestPolicy         kind = 0x101
	relocatableRegion   kind = 0x102
	pageTableRelocation kind = 0x103
	corimDocument       kind = 0x104
	corimSignature      kind = 0x105
	ccaPolicy           kind = 0x106

	parameterArea   kind = 0x301
	pageData        kind = 0x302
	parameterInsert kind = 0x303
	vpContext       kind = 0x304
	requiredMemory  kind = 0x305
	vpCount         kind = 0x307
	srat            kind = 0x308
	madt            kind = 0x309
	mmioRanges      kind = 0x30a
	snpIDBlock      kind = 0x30b
	memoryMap       kind = 0x30c
	errorRange      kind = 0x30d
	commandLine     kind = 0x30e
	slit            kind = 0x30f
	pptt            kind = 0x310
	vbsMeasurement  kind = 0x311
	deviceTree      kind = 0x312
	environmentInfo kind = 0x313
)

// optional is the bit of a type by which a loader that does not know the header
// may skip it.
const optional = 1 << 31

// form is what is known of a type of header.
type form struct {
	name  string
	size  uint32 // bytes of content
	known bool   // to QEMU
}

// form returns what is known of k; its name is empty for an unknown type.
//
// Known to QEMU are the types of its backends/igvm.c since version 10.1, where
// MADT and DEVICE_TREE came later.
func (k kind) form() form {
	switch k {
	case supportedPlatform:
		return form{"SUPPORTED_PLATFORM", 16, true}
	case guestPolicy:
		return form{"GUEST_POLICY", 16, true}
	case relocatableRegion:
		return form{"RELOCATABLE_REGION", 48, false}
	case pageTableRelocation:
		return form{"PAGE_TABLE_RELOCATION_REGION", 32, false}
	case corimDocument:
		return form{"CORIM_DOCUMENT", 16, false}
	case corimSignature:
		return form{"CORIM_SIGNATURE", 16, false}
	case ccaPolicy:
		return form{"CCA_POLICY", 32, false}
	case parameterArea:
		return form{"PARAMETER_AREA", 16, true}
	case pageData:
		return form{"PAGE_DATA", 24, true}
	case parameterInsert:
		return form{"PARAMETER_INSERT", 16, true}
	case vpContext:
		return form{"VP_CONTEXT", 20, true}
	case requiredMemory:
		return form{"REQUIRED_MEMORY", 24, true}
	case snpIDBlock:
		return form{"SNP_ID_BLOCK", 696, true}
	case errorRange:
		return form{"ERROR_RANGE", 16, false}
	case vbsMeasurement:
		return form{"VBS_MEASUREMENT", 864, false}
	default:
		return k.parameter()
	}
}

// parameter returns the form of a type by which the loader writes a parameter
// into an area.
func (k kind) parameter() form {
	switch k {
	case vpCount:
		return form{"VP_COUNT_PARAMETER", 8, true}
	case environmentInfo:
		return form{"ENVIRONMENT_INFO_PARAMETER", 8, true}
	case memoryMap:
		return form{"MEMORY_MAP", 8, true}
	case madt:
		return form{"MADT", 8, true}
	case deviceTree:
		return form{"DEVICE_TREE", 8, true}
	case srat:
		return form{"SRAT", 8, false}
	case slit:
		return form{"SLIT", 8, false}
	case pptt:
		return form{"PPTT", 8, false}
	case mmioRanges:
		return form{"MMIO_RANGES", 8, false}
	case commandLine:
		return form{"COMMAND_LINE", 8, false}
	default:
		return form{}
	}
}

// The sections of the variable headers, in their order.
const (
	stagePlatforms = iota
	stageInitialization
	stageDirectives
)

// stage is the section in which headers of the type stand.
func (k kind) stage() int {
	switch {
	case k <= 0x100:
		return stagePlatforms
	case k <= 0x200:
		return stageInitialization
	default:
		return stageDirectives
	}
}

func (k kind) String() string {
	if f := k.form(); f.name != "" {
		return f.name
	}
	return fmt.Sprintf("type %#x", uint32(k))
}

// HeaderRef names a variable header of a file.
type HeaderRef struct {
	Index  int   // the first is 0
	Offset int64 // in the file, bytes
	kind   kind
}

func (h HeaderRef) String() string {
	return fmt.Sprintf("header %d (%v at %#x)", h.Index, h.kind, h.Offset)
}

// FormatError says what of a file is not in the form of an IGVM file, or beyond
// the bounds on one.
type FormatError struct {
	Header *HeaderRef // nil for the fixed header
	Field  string     // empty for the header as a whole
	Offset int64      // of the field in the file, bytes
	Size   int        // of the field, bytes
	Reason string
}

func (e *FormatError) Error() string {
	where := "fixed header"
	if e.Header != nil {
		where = e.Header.String()
	}
	if e.Field != "" {
		where += fmt.Sprintf(": %s (bytes %#x to %#x)", e.Field, e.Offset, e.Offset+int64(e.Size)-1)
	}
	return "IGVM file: " + where + ": " + e.Reason
}

// header is a variable header with its content.
type header struct {
	HeaderRef
	body []byte
}

func (h header) u16(at int) uint16 { return binary.LittleEndian.Uint16(h.body[at:]) }
func (h header) u32(at int) uint32 { return binary.LittleEndian.Uint32(h.body[at:]) }
func (h header) u64(at int) uint64 { return binary.LittleEndian.Uint64(h.body[at:]) }

// headerHead is the size of a header's type and length, which stand before its
// content.
const headerHead = 8

// bad is an error in the size bytes at an offset of the content.
func (h header) bad(field string, at, size int, format string, args ...any) error {
	return &FormatError{
		Header: &h.HeaderRef, Field: field, Offset: h.Offset + headerHead + int64(at), Size: size,
		Reason: fmt.Sprintf(format, args...),
	}
}

// zero checks that a reserved field is zero.
func (h header) zero(field string, at, size int) error {
	for _, b := range h.body[at : at+size] {
		if b != 0 {
			return h.bad(field, at, size, "is reserved and not zero: %x", h.body[at:at+size])
		}
	}
	return nil
}
