package volume

import (
	"fmt"
)

// Parameters of dm-integrity that are fixed, in sectors of 512 bytes.
const (
	superblockSectors = 8
	sectorsPerBlock   = BlockSize / 512
	interleaveSectors = 1 << log2Interleave // data between two runs of tags: 16 MiB
	bufferSectors     = 128
	journalSectors    = 16384 // 8 MiB, of which it takes whole sections

	log2Interleave = 15
)

// A section of the journal has 8 sectors of entries; each of these has room for
// 496 bytes of entries beside a commit id and a part of the section's HMAC, and
// each entry describes a block that follows.
// Source: Linux 6.12, drivers/md/dm-integrity.c, calculate_journal_section_size.
const (
	entrySize      = (8 + 8*sectorsPerBlock + tagSize + 7) / 8 * 8 // sector, the block's overwritten bytes, tag
	sectionEntries = 8 * ((512 - 8 - 8) / entrySize)               // as many where there is no HMAC
	sectionSectors = sectionEntries*sectorsPerBlock + 8
	sections       = journalSectors / sectionSectors
	initialSectors = superblockSectors + sections*sectionSectors
	tagRunSectors  = interleaveSectors / sectorsPerBlock * tagSize / 512
)

// geometry is where dm-integrity puts things on a disk of a size.
type geometry struct {
	kind Kind
	disk uint64 // sectors of the disk
	data uint64 // sectors that it provides
}

func newGeometry(size uint64, kind Kind) (geometry, error) {
	whole := superblockSectors + size/512
	if size%BlockSize != 0 || whole < initialSectors+tagRunSectors+2*sectorsPerBlock {
		return geometry{}, fmt.Errorf("%d bytes are too few, or no multiple of %d", size, BlockSize)
	}
	// Areas of a run of tags and the data that they belong to, the last one cut.
	const area = tagRunSectors + interleaveSectors
	areas, rest := (whole-initialSectors)/area, (whole-initialSectors)%area
	data := areas * interleaveSectors
	if rest > tagRunSectors {
		data += (rest - tagRunSectors) / sectorsPerBlock * sectorsPerBlock
	}
	return geometry{kind, size / 512, data}, nil
}

// Flags of dm-integrity's superblock.
const (
	flagJournalMAC   = 0x1
	flagFixedPadding = 0x8
)

// superblock is what the kernel itself would write on a disk that it formats.
//
//	offset  size  field (little-endian)
//	0x00    8     magic "integrt\0"
//	0x08    1     version: 4, as the padding is fixed
//	0x09    1     log2(interleaved sectors)
//	0x0a    2     tag size, bytes
//	0x0c    4     sections of the journal
//	0x10    8     provided sectors
//	0x18    4     flags
//	0x1c    1     log2(sectors per block)
//	0x1d    1     log2(blocks per bit of a bitmap), which these volumes have not
//
// Source: Linux 6.12, drivers/md/dm-integrity.c, struct superblock.
func (g geometry) superblock() []byte {
	b := make([]byte, superblockSectors*512)
	copy(b, "integrt\x00")
	b[0x08] = 4
	b[0x09] = log2Interleave
	le.PutUint16(b[0x0a:], tagSize)
	le.PutUint32(b[0x0c:], sections)
	le.PutUint64(b[0x10:], g.data)
	flags := uint32(flagFixedPadding)
	if g.kind == Persistent {
		flags |= flagJournalMAC
	}
	le.PutUint32(b[0x18:], flags)
	b[0x1c] = 3
	b[0x1d] = g.bitmapShift()
	return b
}

// bitmapShift is log2 of the blocks that a bit would stand for: the kernel's
// default of 32768 sectors, or as many as make the bits fit the journal.
func (g geometry) bitmapShift() byte {
	const bits = sections * sectionSectors << 12
	shift := byte(15)
	for bits < (g.data+1<<shift-1)>>shift {
		shift++
	}
	return shift - 3
}
