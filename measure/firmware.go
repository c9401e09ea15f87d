package measure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
)

// Firmware is a parsed firmware image, and the digest after it.
type Firmware struct {
	digest      Digest   // after the image itself
	contents    []Digest // SHA-384 of the image's pages; nil when made from a FirmwareState
	size        uint32   // of the image, bytes
	sections    []Section
	resetVector uint32 // eip of the vCPUs beside the first
	hashTable   uint32 // GPA of the SEV hash table, 0 where there is none
	takesHashes bool
	svsm        *svsmImage // in front of the firmware; nil where there is none
}

// MaxFirmware is the largest firmware image that is measured, in bytes: eight
// times the largest of OVMF's, and no more than QEMU maps below 4 GiB.
const MaxFirmware = 32 << 20

// The image is a multiple of 64 KiB, which QEMU wants for -bios
// (hw/i386/x86-common.c), and ends at 4 GiB.
const (
	firmwareUnit = 64 << 10
	fourGiB      = 1 << 32
)

// GUIDs of the table at the end of OVMF. Source: edk2 2025.02,
// OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm.
var (
	guidFooter   = mustGUID("96b582de-1fb2-45f7-baea-a366c55a082d")
	guidHashArea = mustGUID("7255371f-3a3b-4b04-927b-1da6efa8d454") // u32 base, u32 size
	guidReset    = mustGUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e") // u32 eip
	guidMetadata = mustGUID("dc886566-984a-4798-a75e-5585a7bf67cc") // u32 offset from the end
)

// ParseFirmware reads an OVMF image, as given to QEMU's -bios, and hashes it.
// It refuses an image with which QEMU would not launch an SNP guest. The image
// is not kept.
func ParseFirmware(image []byte) (*Firmware, error) {
	fw, err := parseFirmware(image)
	if err != nil {
		return nil, fmt.Errorf("firmware: %w", err)
	}
	return fw, nil
}

// HashTable returns where in guest memory the SEV hash table stands. It reports
// false for a firmware that cannot be launched with kernel hashes.
func (f *Firmware) HashTable() (gpa uint32, ok bool) {
	return f.hashTable, f.takesHashes
}

// Digest returns the launch digest after the firmware's image, before its
// metadata sections.
func (f *Firmware) Digest() Digest { return f.digest }

func parseFirmware(image []byte) (*Firmware, error) {
	if n := len(image); n == 0 || n%firmwareUnit != 0 || n > MaxFirmware {
		return nil, fmt.Errorf("%d bytes, want a multiple of %d up to %d", n, firmwareUnit, MaxFirmware)
	}
	table, err := parseTable(image)
	if err != nil {
		return nil, err
	}
	fw := &Firmware{size: uint32(len(image))}
	if fw.resetVector, err = table.resetVector(); err != nil {
		return nil, err
	}
	if fw.sections, err = parseMetadata(image, table); err != nil {
		return nil, err
	}
	if err := checkSections(fw.sections, fourGiB-uint64(len(image))); err != nil {
		return nil, err
	}
	if fw.hashTable, err = table.hashArea(); err != nil {
		return nil, err
	}
	if err := fw.checkHashTable(); err != nil {
		return nil, err
	}
	fw.contents = hashPages(image)
	fw.digest = Digest{}.image(fw.contents)
	return fw, nil
}

// table holds the entries of OVMF's GUID table that matter here; nil where absent.
type table map[guid][]byte

// parseTable reads the table backwards from its footer, as QEMU does: of two
// entries with the same GUID the one nearest the footer counts.
//
//	offset from the end  size  field
//	−48                  16    GUID of the footer
//	−50                  2     length of the table with its footer, little-endian
//	… below              n     entries, each: data, u16 length with its own 18 bytes, GUID
//
// Source: QEMU 10.0.2, hw/i386/pc_sysfw_ovmf.c, pc_system_parse_ovmf_flash.
func parseTable(image []byte) (table, error) {
	const head = 18 // u16 length and GUID
	end := len(image) - 32
	if guid(image[end-16:end]) != guidFooter {
		return nil, fmt.Errorf("[%#x:%#x]: no OVMF table: GUID %v, want %v", end-16, end, guid(image[end-16:end]), guidFooter)
	}
	end -= head
	length := int(binary.LittleEndian.Uint16(image[end:]))
	if length < head || length-head > end {
		return nil, fmt.Errorf("[%#x:%#x]: length %d of the OVMF table is not between %d and %d", end, end+2, length, head, end+head)
	}
	start := end - (length - head)
	entries := table{}
	for end > start {
		if end-start < head {
			return nil, fmt.Errorf("[%#x:%#x]: %d stray bytes in the OVMF table", start, end, end-start)
		}
		id := guid(image[end-16 : end])
		n := int(binary.LittleEndian.Uint16(image[end-head:]))
		if n < head || n > end-start {
			return nil, fmt.Errorf("[%#x:%#x]: length %d of the OVMF table's entry %v is not between %d and %d", end-head, end-16, n, id, head, end-start)
		}
		if _, ok := entries[id]; !ok {
			entries[id] = image[end-n : end-head]
		}
		end -= n
	}
	return entries, nil
}

func (t table) resetVector() (uint32, error) {
	b, ok := t[guidReset]
	if !ok || len(b) < 4 {
		return 0, fmt.Errorf("entry %v (AP reset vector): %d bytes, want 4", guidReset, len(b))
	}
	eip := binary.LittleEndian.Uint32(b)
	if eip == 0 {
		return 0, fmt.Errorf("entry %v (AP reset vector): zero", guidReset)
	}
	return eip, nil
}

// hashArea returns the GPA of the SEV hash table, or 0 where there is none.
func (t table) hashArea() (uint32, error) {
	b, ok := t[guidHashArea]
	if !ok {
		return 0, nil
	}
	if len(b) < 8 {
		return 0, fmt.Errorf("entry %v (SEV hash table): %d bytes, want 8", guidHashArea, len(b))
	}
	base, size := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if base == 0 || size < HashTableSize {
		return 0, fmt.Errorf("entry %v (SEV hash table): base %#x and size %#x, want a base and at least %#x bytes", guidHashArea, base, size, HashTableSize)
	}
	return base, nil
}

// parseMetadata reads the SEV metadata.
//
//	offset  size  field
//	0x00    4     "ASEV"
//	0x04    4     length of the whole, bytes
//	0x08    4     version, 1
//	0x0c    4     number of sections
//	0x10    12×n  sections: u32 GPA, u32 size, u32 type
//
// All little-endian. Source: edk2 2025.02, OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
func parseMetadata(image []byte, t table) ([]Section, error) {
	const head, entry = 16, 12
	b, ok := t[guidMetadata]
	if !ok || len(b) < 4 {
		return nil, fmt.Errorf("entry %v (SEV metadata): %d bytes, want 4: not a firmware for SEV-SNP", guidMetadata, len(b))
	}
	le := binary.LittleEndian
	fromEnd := uint64(le.Uint32(b))
	if fromEnd < head || fromEnd > uint64(len(image)) {
		return nil, fmt.Errorf("entry %v (SEV metadata): offset %#x from the end of %#x bytes", guidMetadata, fromEnd, len(image))
	}
	start := len(image) - int(fromEnd)
	m := image[start:]
	if string(m[:4]) != "ASEV" {
		return nil, fmt.Errorf("[%#x:%#x]: SEV metadata: signature %q, want \"ASEV\"", start, start+4, m[:4])
	}
	length, version, count := le.Uint32(m[4:]), le.Uint32(m[8:]), le.Uint32(m[12:])
	if version != 1 {
		return nil, fmt.Errorf("[%#x:%#x]: SEV metadata: version %d, want 1", start+8, start+12, version)
	}
	if count > maxSections {
		return nil, fmt.Errorf("[%#x:%#x]: SEV metadata: %d sections, more than %d", start+12, start+16, count, maxSections)
	}
	if whole := head + entry*uint64(count); uint64(length) < whole || uint64(length) > fromEnd {
		return nil, fmt.Errorf("[%#x:%#x]: SEV metadata: length %d with %d sections, want %d to %d", start+4, start+8, length, count, whole, fromEnd)
	}
	sections := make([]Section, count)
	for i := range sections {
		e := m[head+entry*i:]
		sections[i] = Section{GPA: le.Uint32(e), Size: le.Uint32(e[4:]), Type: SectionType(le.Uint32(e[8:]))}
	}
	return sections, nil
}

// Bounds of the metadata. OVMF has seven sections of together less than 1 MiB.
const (
	maxSections     = 256
	maxSectionBytes = 256 << 20
)

// checkSections refuses what QEMU refuses, and what would make two sections, or
// a section and the firmware's image, share a page: a page is added once.
func checkSections(sections []Section, image uint64) error {
	var total uint64
	for i, s := range sections {
		end := uint64(s.GPA) + uint64(s.Size)
		total += uint64(s.Size)
		switch {
		case s.Size == 0:
			return fmt.Errorf("SEV metadata: section %d: empty", i)
		case s.GPA%PageSize != 0 || s.Size%PageSize != 0:
			return fmt.Errorf("SEV metadata: section %d: %#x+%#x is not made of pages", i, s.GPA, s.Size)
		case end > image:
			return fmt.Errorf("SEV metadata: section %d: %#x+%#x reaches into the firmware at %#x", i, s.GPA, s.Size, image)
		case total > maxSectionBytes:
			return fmt.Errorf("SEV metadata: section %d: more than %d bytes in all", i, maxSectionBytes)
		}
		for j, o := range sections[:i] {
			if uint64(s.GPA) < uint64(o.GPA)+uint64(o.Size) && uint64(o.GPA) < end {
				return fmt.Errorf("SEV metadata: section %d: %#x+%#x overlaps section %d", i, s.GPA, s.Size, j)
			}
		}
	}
	return nil
}

// checkHashTable finds out whether the firmware takes kernel hashes, and refuses
// a hash table that is not in the section that is measured. QEMU alone does not
// look: the table would then stand in memory that nothing measures.
func (f *Firmware) checkHashTable() error {
	for _, s := range f.sections {
		if s.Type != SectionKernelHashes {
			continue
		}
		if s.Size != PageSize {
			return fmt.Errorf("SEV metadata: kernel hashes: %#x bytes, want one page", s.Size)
		}
		if f.takesHashes {
			return errors.New("SEV metadata: kernel hashes: stands twice")
		}
		if f.hashTable == 0 {
			continue
		}
		if f.hashTable < s.GPA || uint64(f.hashTable)+HashTableSize > uint64(s.GPA)+uint64(s.Size) {
			return fmt.Errorf("SEV hash table at %#x is not within the measured page at %#x", f.hashTable, s.GPA)
		}
		f.takesHashes = true
	}
	return nil
}

func (f *Firmware) whyNoHashes() string {
	if f.hashTable == 0 {
		return "no SEV hash table in its GUID table"
	}
	return "no KERNEL_HASHES section in its SEV metadata"
}

// hashPages returns the SHA-384 of the image's pages. They do not depend on each
// other and are computed on all processors.
func hashPages(image []byte) []Digest {
	pages := len(image) / PageSize
	contents := make([]Digest, pages)
	workers := min(runtime.GOMAXPROCS(0), pages)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < pages; i += workers {
				contents[i] = hashPage((*[PageSize]byte)(image[i*PageSize:]))
			}
		})
	}
	wg.Wait()
	return contents
}

// image adds a firmware image's pages, which end at 4 GiB.
func (d Digest) image(contents []Digest) Digest {
	gpa := uint64(fourGiB - len(contents)*PageSize)
	for i, c := range contents {
		d = d.Extend(PageInfo{Contents: c, Type: PageNormal, GPA: gpa + uint64(i)*PageSize})
	}
	return d
}
