package main

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/kraudcloud/kattest/measure"
)

// guid is a GUID as it stands in memory.
type guid [16]byte

// The GUIDs that a firmware's table needs. Source: edk2 2025.02, OvmfPkg/ResetVector.
var (
	guidFooter   = guid{0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d}
	guidHashArea = guid{0x1f, 0x37, 0x55, 0x72, 0x3b, 0x3a, 0x04, 0x4b, 0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54}
	guidReset    = guid{0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f, 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e}
	guidMetadata = guid{0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc}
)

type entry struct {
	id   guid
	data []byte
}

func u32(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// randomFirmware returns an image that all peers read alike: of every GUID one
// entry, one page each for secrets, CPUID and kernel hashes, no unknown section.
func randomFirmware(r *rand.Rand, takesHashes bool) []byte {
	image := randomBytes(r, 64<<10*(1+r.IntN(6)))
	sections, hashTable := randomSections(r, takesHashes)
	metadata := append([]byte("ASEV"), u32(uint32(16+12*len(sections)), 1, uint32(len(sections)))...)
	for _, s := range sections {
		metadata = append(metadata, u32(s.GPA, s.Size, uint32(s.Type))...)
	}
	// QEMU wants as much before the metadata as it is long.
	fromEnd := 4096 + r.IntN(32<<10)
	copy(image[len(image)-fromEnd:], metadata)

	entries := []entry{
		{guidReset, u32(1 + r.Uint32N(1<<32-1))},
		{guidMetadata, u32(uint32(fromEnd))},
	}
	if takesHashes {
		entries = append(entries, entry{guidHashArea, u32(hashTable, measure.HashTableSize+r.Uint32N(1024))})
	}
	for range r.IntN(4) {
		entries = append(entries, entry{guid(randomBytes(r, 16)), randomBytes(r, r.IntN(40))})
	}
	r.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	var table []byte
	for _, e := range append(entries, entry{guidFooter, nil}) {
		n := len(e.data) + 18
		if e.id == guidFooter {
			n = len(table) + 18 // the whole table's
		}
		table = append(table, e.data...)
		table = binary.LittleEndian.AppendUint16(table, uint16(n))
		table = append(table, e.id[:]...)
	}
	copy(image[len(image)-32-len(table):], table)
	return image
}

// randomSections stand apart from each other in random order. The hash table is
// somewhere in the page for kernel hashes.
func randomSections(r *rand.Rand, takesHashes bool) (sections []measure.Section, hashTable uint32) {
	types := []measure.SectionType{measure.SectionMemory, measure.SectionSecrets, measure.SectionCPUID}
	for range r.IntN(4) {
		types = append(types, measure.SectionMemory)
	}
	if r.IntN(2) == 0 {
		types = append(types, measure.SectionCAA)
	}
	if takesHashes {
		types = append(types, measure.SectionKernelHashes)
	}
	r.Shuffle(len(types), func(i, j int) { types[i], types[j] = types[j], types[i] })
	gpa := measure.PageSize * r.Uint32N(0x1000)
	for _, t := range types {
		s := measure.Section{GPA: gpa, Size: measure.PageSize, Type: t}
		if t == measure.SectionMemory || t == measure.SectionCAA {
			s.Size *= 1 + r.Uint32N(20)
		}
		if t == measure.SectionKernelHashes {
			hashTable = gpa + r.Uint32N(measure.PageSize-measure.HashTableSize+1)
		}
		gpa += s.Size + measure.PageSize*r.Uint32N(8)
		sections = append(sections, s)
	}
	r.Shuffle(len(sections), func(i, j int) { sections[i], sections[j] = sections[j], sections[i] })
	return sections, hashTable
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n]
}
