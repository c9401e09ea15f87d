package igvm

import (
	"github.com/kraudcloud/kattest/measure"
)

const (
	hugePage = 2 << 20 // bytes
	// gpaLimit is beyond every guest physical address: 52 bits.
	gpaLimit = 1 << 52
	// maxContexts of vCPUs are taken, of all platforms together.
	maxContexts = 2 * measure.MaxVCPUs
	// smallestParameter is the size of the number of vCPUs in bytes.
	smallestParameter = 4
)

// directive is a header that puts something into the guest. Memory for each is
// what bounds a file's headers: it is kept small.
type directive struct {
	header int32 // index among all headers
	at     int32 // index among the directives
	offset uint32
	kind   uint16
	data   dataType
	mask   uint32
	flags  pageFlags
	// index of what it puts there: a page of File.contents, or none; an area of
	// File.areas; a context of File.contexts.
	index int32
	gpa   uint64
}

// none is the index of a page that is not in the file: one of zeros.
const none = -1

func (d directive) ref() HeaderRef {
	return HeaderRef{Index: int(d.header), Offset: int64(d.offset), kind: kind(d.kind)}
}

// pageFlags are the flags of a PAGE_DATA.
type pageFlags uint32

const (
	flag2MiB       pageFlags = 1 << 0
	flagUnmeasured pageFlags = 1 << 1
	flagShared     pageFlags = 1 << 2
)

// size returns the size of the page in bytes.
func (f pageFlags) size() uint64 {
	if f&flag2MiB != 0 {
		return hugePage
	}
	return measure.PageSize
}

// dataType is what the page of a PAGE_DATA is for.
type dataType uint16

const (
	dataNormal dataType = iota
	dataSecrets
	dataCPUID
	dataCPUIDXF
	dataTypes // their number
)

// context is the state of a vCPU as a file has it: a VMSA.
type context struct {
	vp   uint16
	mask uint32
	vmsa *[measure.PageSize]byte
}

func (p *parser) add(h header, d directive) {
	d.header, d.at, d.offset, d.kind = int32(h.Index), int32(p.directive), uint32(h.Offset), uint16(h.kind)
	p.file.directives = append(p.file.directives, d)
}

// guest counts pages from gpa on that an SEV-SNP guest is made of.
func (p *parser) guest(h header, gpa, size uint64) error {
	if gpa%measure.PageSize != 0 {
		return h.bad("GPA", 0, 8, "%#x is not a multiple of %d", gpa, measure.PageSize)
	}
	if gpa >= gpaLimit || size > gpaLimit-gpa {
		return h.bad("GPA", 0, 8, "%#x: %d bytes from there reach beyond 52 bits of address", gpa, size)
	}
	if p.file.pages += size / measure.PageSize; p.file.pages > MaxPages {
		return &FormatError{Header: &h.HeaderRef, Reason: "more than 4 GiB of pages: not measured"}
	}
	return nil
}

// inFile checks that size bytes at an offset are file data.
func (p *parser) inFile(h header, at int, offset uint32, size uint64) error {
	if int64(offset) < p.dataStart || int64(offset) > p.size || size > uint64(p.size-int64(offset)) {
		return h.bad("file offset", at, 4, "%#x: %d bytes from there are not within the file data, %#x to %#x", offset, size, p.dataStart, p.size-1)
	}
	return nil
}

// pageData takes in a PAGE_DATA.
//
//	offset  size  field
//	0x00    8     GPA
//	0x08    4     compatibility mask
//	0x0c    4     file offset, 0 for a page of zeros
//	0x10    4     flags: bit 0, of 2 MiB; 1, unmeasured; 2, shared; else reserved
//	0x14    2     data type: 0 normal, 1 secrets, 2 CPUID, 3 CPUID_XF
//	0x16    2     reserved
//
// Whatever the page's size, 4 KiB are read: so does the loaders' library.
// Source: microsoft/igvm e6c3ff1c, IGVM_VHS_PAGE_DATA and new_from_binary_split.
func (p *parser) pageData(h header) error {
	d := directive{gpa: h.u64(0), mask: h.u32(8), flags: pageFlags(h.u32(16)), data: dataType(h.u16(20)), index: none}
	if reserved := d.flags &^ (flag2MiB | flagUnmeasured | flagShared); reserved != 0 {
		return h.bad("flags", 16, 4, "%#x has reserved bits %#x set", uint32(d.flags), uint32(reserved))
	}
	if d.data >= dataTypes {
		return h.bad("data type", 20, 2, "%d is not known", uint16(d.data))
	}
	if err := h.zero("reserved", 22, 2); err != nil {
		return err
	}
	if d.gpa%d.flags.size() != 0 {
		return h.bad("GPA", 0, 8, "%#x is not a multiple of the page's size, %d", d.gpa, d.flags.size())
	}
	offset := h.u32(12)
	if offset != 0 {
		if err := p.inFile(h, 12, offset, measure.PageSize); err != nil {
			return err
		}
	}
	if d.mask&p.snp == 0 {
		return nil
	}
	if err := p.guest(h, d.gpa, d.flags.size()); err != nil {
		return err
	}
	if offset != 0 {
		d.index = int32(len(p.offsets)) // for now, see hash
		p.offsets = append(p.offsets, offset)
	}
	p.add(h, d)
	return nil
}

// parameterArea takes in a PARAMETER_AREA, in which the loader gathers what it
// tells the guest. It is every platform's.
//
//	offset  size  field
//	0x00    8     number of bytes, a multiple of 4096
//	0x08    4     index of the area, each given once
//	0x0c    4     file offset of what is there before the parameters, 0 for zeros
func (p *parser) parameterArea(h header) error {
	size, index, offset := h.u64(0), h.u32(8), h.u32(12)
	if size == 0 || size%measure.PageSize != 0 || size > MaxPages*measure.PageSize {
		return h.bad("number of bytes", 0, 8, "%d is not a multiple of %d between that and 4 GiB", size, measure.PageSize)
	}
	if _, ok := p.areaOf[index]; ok {
		return h.bad("parameter area index", 8, 4, "%d is another area's", index)
	}
	if offset != 0 {
		if err := p.inFile(h, 12, offset, size); err != nil {
			return err
		}
	}
	p.areaOf[index] = area{at: int32(len(p.file.areas))}
	p.file.areas = append(p.file.areas, size)
	return nil
}

// area returns the area that a header names at an offset of its content.
func (p *parser) area(h header, at int) (area, error) {
	index := h.u32(at)
	a, ok := p.areaOf[index]
	if !ok {
		return area{}, h.bad("parameter area index", at, 4, "there is no area %d before this header", index)
	}
	if a.inserted {
		return area{}, h.bad("parameter area index", at, 4, "area %d was inserted before this header", index)
	}
	return a, nil
}

// parameter checks a header by which the loader writes into an area.
//
//	offset  size  field
//	0x00    4     parameter area index
//	0x04    4     byte offset in the area
func (p *parser) parameter(h header) error {
	a, err := p.area(h, 0)
	if err != nil {
		return err
	}
	if offset, size := h.u32(4), p.file.areas[a.at]; uint64(offset)+smallestParameter > size {
		return h.bad("byte offset", 4, 4, "%#x leaves no place for a parameter in the area's %#x bytes", offset, size)
	}
	return nil
}

// parameterInsert takes in a PARAMETER_INSERT, which puts an area into the guest.
//
//	offset  size  field
//	0x00    8     GPA
//	0x08    4     compatibility mask
//	0x0c    4     parameter area index
func (p *parser) parameterInsert(h header) error {
	a, err := p.area(h, 12)
	if err != nil {
		return err
	}
	d := directive{gpa: h.u64(0), mask: h.u32(8), index: a.at}
	if d.gpa%measure.PageSize != 0 {
		return h.bad("GPA", 0, 8, "%#x is not a multiple of %d", d.gpa, measure.PageSize)
	}
	p.areaOf[h.u32(12)] = area{at: a.at, inserted: true}
	if d.mask&p.snp == 0 {
		return nil
	}
	if err := p.guest(h, d.gpa, p.file.areas[a.at]); err != nil {
		return err
	}
	p.add(h, d)
	return nil
}

// memory checks a REQUIRED_MEMORY or an ERROR_RANGE: memory that must be there,
// and is not measured.
//
//	offset  size  field
//	0x00    8     GPA
//	0x08    4     compatibility mask
//	0x0c    4     number of bytes
//	0x10    4     flags: bit 0, VTL 2 protects it; REQUIRED_MEMORY alone
//	0x14    4     reserved; REQUIRED_MEMORY alone
func (p *parser) memory(h header) error {
	if gpa := h.u64(0); gpa%measure.PageSize != 0 {
		return h.bad("GPA", 0, 8, "%#x is not a multiple of %d", gpa, measure.PageSize)
	}
	if h.kind == errorRange {
		return nil
	}
	if size := h.u32(12); size%measure.PageSize != 0 {
		return h.bad("number of bytes", 12, 4, "%d is not a multiple of %d", size, measure.PageSize)
	}
	return h.zero("reserved", 20, 4)
}

// vpContext takes in a VP_CONTEXT, the state in which a vCPU starts. For SEV-SNP
// and SEV-ES it is a VMSA of 4096 bytes; other platforms' are not looked at.
//
//	offset  size  field
//	0x00    8     GPA of the VMSA
//	0x08    4     compatibility mask, of one platform
//	0x0c    4     file offset
//	0x10    2     index of the vCPU
//	0x12    2     reserved
func (p *parser) vpContext(h header) error {
	d := directive{gpa: h.u64(0), mask: h.u32(8)}
	if d.mask&p.masks == 0 || d.mask&(d.mask-1) != 0 {
		return h.bad("compatibility mask", 8, 4, "%#x, want one platform's", d.mask)
	}
	if err := h.zero("reserved", 18, 2); err != nil {
		return err
	}
	if d.mask != p.snp && d.mask != p.seves {
		return nil
	}
	if d.gpa%measure.PageSize != 0 {
		return h.bad("GPA", 0, 8, "%#x is not a multiple of %d", d.gpa, measure.PageSize)
	}
	c := context{vp: h.u16(16), mask: d.mask, vmsa: new([measure.PageSize]byte)}
	for _, other := range p.file.contexts {
		if other.mask == c.mask && other.vp == c.vp {
			return h.bad("index of the vCPU", 16, 2, "vCPU %d has a context already: loaders differ in which one counts", c.vp)
		}
	}
	if len(p.file.contexts) == maxContexts {
		return &FormatError{Header: &h.HeaderRef, Reason: "too many contexts of vCPUs: not measured"}
	}
	offset := h.u32(12)
	if err := p.inFile(h, 12, offset, measure.PageSize); err != nil {
		return err
	}
	if err := readAt(p.r, c.vmsa[:], int64(offset)); err != nil {
		return err
	}
	d.index = int32(len(p.file.contexts))
	p.file.contexts = append(p.file.contexts, c)
	p.add(h, d)
	return nil
}
