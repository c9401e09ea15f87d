package igvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"slices"

	"github.com/kraudcloud/kattest/measure"
)

// parser reads a file's headers into a File.
type parser struct {
	r    io.ReaderAt
	size int64
	file File

	version   uint32
	dataStart int64 // file data begins behind the headers
	stage     int   // of the headers read so far
	masks     uint32
	snp       uint32 // the bit of SEV-SNP
	seves     uint32 // the bit of SEV-ES
	directive int    // the number of directives so far
	areaOf    map[uint32]area
	offsets   []uint32 // in the file, of the pages as the headers refer to them
}

// area is a parameter area: its place in File.areas, and whether it was inserted.
type area struct {
	at       int32
	inserted bool
}

// The fixed header. Source: microsoft/igvm e6c3ff1c, igvm_defs,
// IGVM_FIXED_HEADER and IGVM_FIXED_HEADER_V2. Numbers are little-endian.
//
//	offset  size  field
//	0x00    4     magic, "IGVM"
//	0x04    4     format version, 1 or 2
//	0x08    4     variable header offset: behind this header
//	0x0c    4     variable header size, bytes
//	0x10    4     total file size, bytes
//	0x14    4     CRC-32 (IEEE) of fixed and variable headers, this field zero
//	0x18    4     architecture, 0 (x64) or 1 (AArch64); version 2 alone
//	0x1c    4     page size, 4096; version 2 alone
const (
	fixedV1 = 0x18
	fixedV2 = 0x20

	offsetVersion  = 0x04
	offsetHeaders  = 0x08
	offsetLength   = 0x0c
	offsetTotal    = 0x10
	offsetChecksum = 0x14
	offsetArch     = 0x18
	offsetPageSize = 0x1c
)

// parse reads the headers: the fixed one, then each variable one.
func (p *parser) parse() error {
	headers, err := p.fixed()
	if err != nil {
		return err
	}
	start := p.dataStart - int64(len(headers))
	p.file.directives = make([]directive, 0, len(headers)/(headerHead+int(pageData.form().size)))
	for at, index := 0, 0; at < len(headers); index++ {
		h, next, err := nextHeader(headers, at, index, start)
		if err != nil {
			return err
		}
		if err := p.header(h); err != nil {
			return err
		}
		at = next
	}
	if len(p.file.platforms) == 0 {
		return &FormatError{Reason: "no SUPPORTED_PLATFORM header: the file is for no platform"}
	}
	p.file.version = p.version
	return nil
}

// fixed checks the fixed header and the checksum, and returns the variable headers.
func (p *parser) fixed() ([]byte, error) {
	bad := func(field string, at int, format string, args ...any) error {
		return &FormatError{Field: field, Offset: int64(at), Size: 4, Reason: fmt.Sprintf(format, args...)}
	}
	var b [fixedV2]byte
	n := min(p.size, fixedV2)
	if err := readAt(p.r, b[:max(n, 0)], 0); err != nil {
		return nil, err
	}
	if n < fixedV1 {
		return nil, &FormatError{Reason: fmt.Sprintf("the file has %d bytes, fewer than the header's %d", p.size, fixedV1)}
	}
	field := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	if !Is(b[:]) {
		return nil, bad("magic", 0, "%q, want %q", b[:4], magic)
	}
	p.version = field(offsetVersion)
	length := int64(fixedV1)
	switch p.version {
	case 1:
	case 2:
		length = fixedV2
		if arch := field(offsetArch); arch > 1 {
			return nil, bad("architecture", offsetArch, "%d, want 0 (x64) or 1 (AArch64)", arch)
		}
		if size := field(offsetPageSize); size != measure.PageSize {
			return nil, bad("page size", offsetPageSize, "%d, want %d", size, measure.PageSize)
		}
	default:
		return nil, bad("format version", offsetVersion, "%d, want 1 or 2", p.version)
	}
	if offset := field(offsetHeaders); int64(offset) != length {
		return nil, bad("variable header offset", offsetHeaders, "%#x, want %#x: directly behind this header", offset, length)
	}
	if total := field(offsetTotal); int64(total) != p.size {
		return nil, bad("total file size", offsetTotal, "%d, and the file has %d bytes", total, p.size)
	}
	size := field(offsetLength)
	if size > MaxHeaders {
		return nil, bad("variable header size", offsetLength, "%d bytes, more than %d", size, MaxHeaders)
	}
	p.dataStart = length + int64(size)
	if p.dataStart >= p.size { // as the loaders' library has it
		return nil, bad("variable header size", offsetLength, "%d bytes, which leaves none of the file's %d for file data", size, p.size)
	}
	headers := make([]byte, size)
	if err := readAt(p.r, headers, length); err != nil {
		return nil, err
	}
	want := field(offsetChecksum)
	clear(b[offsetChecksum : offsetChecksum+4])
	if sum := crc32.Update(crc32.ChecksumIEEE(b[:length]), crc32.IEEETable, headers); sum != want {
		return nil, bad("checksum", offsetChecksum, "%#08x, and the headers' CRC-32 is %#08x", want, sum)
	}
	return headers, p.checkArch(field(offsetArch))
}

// checkArch refuses a file for AArch64, in which no platform is one of ours.
func (p *parser) checkArch(arch uint32) error {
	if p.version == 2 && arch != 0 {
		return &FormatError{Field: "architecture", Offset: offsetArch, Size: 4, Reason: "AArch64, which has no SEV-SNP"}
	}
	return nil
}

// nextHeader returns the variable header at an offset of all of them, and where
// the next one begins.
//
//	offset  size  field
//	0x00    4     type; bit 31 says that a loader may skip it
//	0x04    4     length of the content, n
//	0x08    n     content
//	…             zeros, to a multiple of 8
//
// Source: microsoft/igvm e6c3ff1c, igvm_defs, IGVM_VHS_VARIABLE_HEADER.
func nextHeader(headers []byte, at, index int, start int64) (header, int, error) {
	h := header{HeaderRef: HeaderRef{Index: index, Offset: start + int64(at)}}
	rest := headers[at:]
	if len(rest) < headerHead {
		return header{}, 0, &FormatError{Header: &h.HeaderRef, Reason: fmt.Sprintf("%d stray bytes behind the last header", len(rest))}
	}
	h.kind = kind(binary.LittleEndian.Uint32(rest))
	length := binary.LittleEndian.Uint32(rest[4:])
	f := h.kind.form()
	switch {
	case h.kind&optional != 0:
		return header{}, 0, h.bad("type", -headerHead, 4, "%#x is an optional one, which the loaders' library refuses", uint32(h.kind))
	case f.name == "":
		return header{}, 0, h.bad("type", -headerHead, 4, "%#x is not known, and not optional", uint32(h.kind))
	case length != f.size:
		return header{}, 0, h.bad("length", 4-headerHead, 4, "%d, want %d", length, f.size)
	}
	end := headerHead + int(f.size)
	padded := (end + 7) &^ 7
	if padded > len(rest) {
		return header{}, 0, &FormatError{Header: &h.HeaderRef, Reason: fmt.Sprintf("%d bytes, and %d are left of the headers", padded, len(rest))}
	}
	h.body = rest[headerHead:padded]
	if err := h.zero("padding", int(f.size), padded-end); err != nil {
		return header{}, 0, err
	}
	h.body = h.body[:f.size]
	return h, at + padded, nil
}

// header takes in a variable header.
func (p *parser) header(h header) error {
	stage := h.kind.stage()
	if stage < p.stage {
		return &FormatError{Header: &h.HeaderRef, Reason: "stands behind headers of a later section: platforms come first, then initialization, then directives"}
	}
	p.stage = stage
	if stage == stageDirectives {
		p.directive++
	}
	if !h.kind.form().known && !slices.ContainsFunc(p.file.foreign, func(r HeaderRef) bool { return r.kind == h.kind }) {
		p.file.foreign = append(p.file.foreign, h.HeaderRef)
	}
	switch h.kind {
	case supportedPlatform:
		return p.platform(h)
	case guestPolicy:
		return p.policy(h)
	case parameterArea:
		return p.parameterArea(h)
	case pageData:
		return p.pageData(h)
	case parameterInsert:
		return p.parameterInsert(h)
	case vpContext:
		return p.vpContext(h)
	case requiredMemory, errorRange:
		return p.memory(h)
	case snpIDBlock:
		return p.snpIDBlock(h)
	}
	if h.kind.parameter().name != "" {
		return p.parameter(h)
	}
	return nil // of another platform, or of no account for what is measured
}

// platform takes in a SUPPORTED_PLATFORM.
//
//	offset  size  field
//	0x00    4     compatibility mask: one bit
//	0x04    1     highest VTL, 0 or 2
//	0x05    1     platform type
//	0x06    2     platform version, 1
//	0x08    8     shared GPA boundary; 0 for the native platform and VSM
func (p *parser) platform(h header) error {
	platform := Platform{Type: PlatformType(h.body[5]), Mask: h.u32(0)}
	if bits.OnesCount32(platform.Mask) != 1 {
		return h.bad("compatibility mask", 0, 4, "%#x, want one bit", platform.Mask)
	}
	if platform.Mask&p.masks != 0 {
		return h.bad("compatibility mask", 0, 4, "%#x is another platform's", platform.Mask)
	}
	if vtl := h.body[4]; vtl != 0 && vtl != 2 {
		return h.bad("highest VTL", 4, 1, "%d, want 0 or 2", vtl)
	}
	if platform.Type >= platforms || platform.Type == PlatformCCA {
		return h.bad("platform type", 5, 1, "%d is not one of x64's", uint8(platform.Type))
	}
	if version := h.u16(6); version != 1 {
		return h.bad("platform version", 6, 2, "%d, want 1", version)
	}
	if boundary := h.u64(8); boundary != 0 && (platform.Type == PlatformNative || platform.Type == PlatformVSM) {
		return h.bad("shared GPA boundary", 8, 8, "%#x, want 0 for %v", boundary, platform.Type)
	}
	for _, other := range p.file.platforms {
		if other.Type == platform.Type {
			return h.bad("platform type", 5, 1, "%v is given twice", platform.Type)
		}
	}
	switch platform.Type {
	case PlatformSNP:
		p.snp = platform.Mask
	case PlatformSEVES:
		p.seves = platform.Mask
	}
	p.masks |= platform.Mask
	p.file.platforms = append(p.file.platforms, platform)
	return nil
}

// policy takes in a GUEST_POLICY.
//
//	offset  size  field
//	0x00    8     policy
//	0x08    4     compatibility mask
//	0x0c    4     reserved
func (p *parser) policy(h header) error {
	if err := h.zero("reserved", 12, 4); err != nil {
		return err
	}
	if h.u32(8)&p.snp == 0 {
		return nil
	}
	if p.file.policy != nil {
		return h.bad("policy", 0, 8, "a second one for SEV-SNP: loaders differ in which one counts")
	}
	policy := h.u64(0)
	p.file.policy = &policy
	return nil
}

// readAt fills b, or says what is missing.
func readAt(r io.ReaderAt, b []byte, offset int64) error {
	if n, err := r.ReadAt(b, offset); n < len(b) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("IGVM file: reading bytes %#x to %#x: %w", offset, offset+int64(len(b))-1, err)
	}
	return nil
}
