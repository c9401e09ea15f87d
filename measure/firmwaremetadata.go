package measure

import "encoding/binary"

// Bounds of the metadata. OVMF has seven sections of together less than 1 MiB.
const (
	maxSections     = 256
	maxSectionBytes = 256 << 20
)

const (
	metadataHead    = 16 // bytes before the sections
	metadataSection = 12 // bytes of a section
)

// parseMetadata reads the SEV metadata and refuses what cannot be launched.
// Its sections stand below top.
func parseMetadata(image []byte, t table, top uint64) ([]Section, error) {
	var f findings
	at, sections := f.readMetadata(image, t)
	f.checkSections(sections, at, top)
	return sections, f.err()
}

// readMetadata reads the SEV metadata. Sections that cannot be read are nil.
//
//	offset  size  field
//	0x00    4     "ASEV"
//	0x04    4     length of the whole, bytes
//	0x08    4     version, 1
//	0x0c    4     number of sections
//	0x10    12×n  sections: u32 GPA, u32 size, u32 type
//
// All little-endian. Sources: edk2 2025.02,
// OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm; QEMU 10.0.2, target/i386/sev.c,
// pc_system_parse_sev_metadata.
func (f *findings) readMetadata(image []byte, t table) (span, []Section) {
	e, ok := t.find(guidMetadata)
	if !ok {
		f.add(ProblemNoMetadata, span{}, "no entry %v (SEV metadata)", guidMetadata)
		return span{}, nil
	}
	if len(e.data) < 4 {
		f.add(ProblemMetadataOffset, e.at, "entry %v (SEV metadata): %d bytes, want 4", guidMetadata, len(e.data))
		return span{}, nil
	}
	le := binary.LittleEndian
	fromEnd := uint64(le.Uint32(e.data))
	if fromEnd < metadataHead || fromEnd > uint64(len(image)) {
		f.add(ProblemMetadataOffset, e.at, "entry %v (SEV metadata): offset %#x from the end of %#x bytes", guidMetadata, fromEnd, len(image))
		return span{}, nil
	}
	start := len(image) - int(fromEnd)
	m := image[start:]
	field := func(offset int) span { return span{start + offset, start + offset + 4} }
	if string(m[:4]) != "ASEV" {
		f.add(ProblemMetadataSignature, field(0), "SEV metadata: signature %q, want \"ASEV\"", m[:4])
		return span{}, nil
	}
	length, version, count := uint64(le.Uint32(m[4:])), le.Uint32(m[8:]), uint64(le.Uint32(m[12:]))
	if version != 1 {
		f.add(ProblemMetadataVersion, field(8), "SEV metadata: version %d, want 1", version)
		return span{}, nil
	}
	// QEMU compares the length with what stands before the metadata, not behind.
	most := min(fromEnd, uint64(start))
	if length < metadataHead || length > most {
		f.add(ProblemMetadataLength, field(4), "SEV metadata: length %d is not between %d and %d", length, metadataHead, most)
		return span{}, nil
	}
	if most := min((length-metadataHead)/metadataSection, maxSections); count > most {
		f.add(ProblemMetadataCount, field(12), "SEV metadata: %d sections in %d bytes, more than %d", count, length, most)
		return span{}, nil
	}
	sections := make([]Section, count)
	for i := range sections {
		b := m[metadataHead+metadataSection*i:]
		sections[i] = Section{GPA: le.Uint32(b), Size: le.Uint32(b[4:]), Type: SectionType(le.Uint32(b[8:]))}
	}
	return span{start, start + metadataHead + metadataSection*len(sections)}, sections
}

// section returns the bytes of section i of the metadata at s.
func (s span) section(i int) span {
	if s.end == 0 {
		return span{} // of a FirmwareState
	}
	start := s.start + metadataHead + metadataSection*i
	return span{start, start + metadataSection}
}

// checkSections looks for what QEMU refuses: among it, that two sections, or a
// section and an image that begins at top, share a page.
func (f *findings) checkSections(sections []Section, at span, top uint64) {
	var total uint64
	for i, s := range sections {
		here, end := at.section(i), uint64(s.GPA)+uint64(s.Size)
		total += uint64(s.Size)
		switch {
		case s.Size == 0:
			f.add(ProblemSectionEmpty, here, "SEV metadata: section %d: empty", i)
		case s.GPA%PageSize != 0 || s.Size%PageSize != 0:
			f.add(ProblemSectionUnaligned, here, "SEV metadata: section %d: %#x+%#x is not made of pages", i, s.GPA, s.Size)
		case end > top:
			f.add(ProblemSectionOverImage, here, "SEV metadata: section %d: %#x+%#x reaches into the firmware at %#x", i, s.GPA, s.Size, top)
		}
		if !s.Type.Known() {
			f.add(ProblemSectionType, here, "SEV metadata: section %d: unknown type %v", i, s.Type)
		}
		for j, o := range sections[:i] {
			if s.Size != 0 && uint64(s.GPA) < uint64(o.GPA)+uint64(o.Size) && uint64(o.GPA) < end {
				f.add(ProblemSectionOverlap, here, "SEV metadata: section %d: %#x+%#x overlaps section %d", i, s.GPA, s.Size, j)
				break
			}
		}
	}
	if total > maxSectionBytes {
		f.add(ProblemSectionsTooLarge, at, "SEV metadata: sections of %d bytes, more than %d", total, maxSectionBytes)
	}
	if sections != nil {
		f.wantSection(sections, at, SectionSecrets, ProblemNoSecrets)
		f.wantSection(sections, at, SectionCPUID, ProblemNoCPUID)
	}
}

func (f *findings) wantSection(sections []Section, at span, t SectionType, missing ProblemCode) {
	for _, s := range sections {
		if s.Type == t {
			return
		}
	}
	f.add(missing, at, "no %v section in its SEV metadata", t)
}

// checkHashTable finds out whether the firmware takes kernel hashes. QEMU puts
// the table into the first page of each KERNEL_HASHES section, at the offset in
// the page that the hash table's address has, and does not look whether that is
// the table's address.
// Source: QEMU 10.0.2, target/i386/sev.c, snp_launch_update_kernel_hashes.
func (f *findings) checkHashTable(sections []Section, at span, hashTable uint32) bool {
	page, found := Section{}, 0
	for i, s := range sections {
		if s.Type != SectionKernelHashes {
			continue
		}
		if found++; found > 1 {
			f.add(ProblemHashSectionTwice, at.section(i), "more than one %v section in its SEV metadata", SectionKernelHashes)
			return false
		}
		page = s
	}
	if found == 0 {
		f.add(ProblemNoHashSection, at, "no %v section in its SEV metadata", SectionKernelHashes)
		return false
	}
	if hashTable == 0 {
		return false // which is said already
	}
	if hashTable < page.GPA || uint64(hashTable)+HashTableSize > uint64(page.GPA)+PageSize {
		f.add(ProblemHashTableElsewhere, span{}, "a SEV hash table at %#x that is not within the measured page at %#x", hashTable, page.GPA)
		return false
	}
	return true
}
