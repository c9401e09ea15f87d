package ext4

import (
	"encoding/binary"
	"io"
)

// Feature flags. Source: Linux 6.12, fs/ext4/ext4.h.
const (
	compatHasJournal   = 0x0004
	compatExtAttr      = 0x0008
	compatDirIndex     = 0x0020
	compatSparseSuper2 = 0x0200 // copies of the superblock where s_backup_bgs says: nowhere

	incompatFiletype = 0x0002
	incompatExtents  = 0x0040

	roLargeFile  = 0x0002
	roHugeFile   = 0x0008
	roGroupCRC   = 0x0010
	roDirNlink   = 0x0020
	roExtraIsize = 0x0040
)

const (
	superMagic  = 0xEF53
	stateValid  = 1
	errorsRO    = 2 // remount read-only
	revDynamic  = 1
	hashHalfMD4 = 1
	signedHash  = 1 // flag: characters of names are signed, as on this processor
	extraIsize  = 32
)

// superblock returns block 0. Times are 0: the guest's clock is the host's.
//
//	offset  size  field (from byte 1024 of the block)
//	0x000   4     inodes
//	0x004   4     blocks
//	0x00C   4     free blocks
//	0x010   4     free inodes
//	0x018   4     log2(block size) - 10
//	0x01C   4     the same of clusters
//	0x020   4     blocks per group
//	0x024   4     clusters per group
//	0x028   4     inodes per group
//	0x036   2     mounts before a check: never
//	0x038   2     magic
//	0x03A   2     state
//	0x03C   2     what to do on errors
//	0x04C   4     revision
//	0x054   4     first inode that is not reserved
//	0x058   2     inode size
//	0x05C   4     compatible features
//	0x060   4     incompatible features
//	0x064   4     features compatible for reading
//	0x068   16    UUID
//	0x0E0   4     the journal's inode
//	0x0EC   16    seed of the directories' hash
//	0x0FC   1     hash of directories
//	0x0FD   1     1: 0x10C holds a copy of the journal's extents
//	0x10C   68    i_block and size of the journal's inode
//	0x15C   2     extra inode bytes, at least
//	0x15E   2     extra inode bytes, wanted
//	0x160   4     flags
//	0x24C   8     groups with copies of the superblock: none
func (l layout) superblock() []byte {
	block := make([]byte, BlockSize)
	b := block[1024:]
	le.PutUint32(b[0x000:], l.groups*inodesPerGroup)
	le.PutUint32(b[0x004:], l.blocks)
	le.PutUint32(b[0x00C:], l.freeBlocks())
	le.PutUint32(b[0x010:], l.groups*inodesPerGroup-(firstInode-1))
	le.PutUint32(b[0x018:], 2)
	le.PutUint32(b[0x01C:], 2)
	le.PutUint32(b[0x020:], blocksPerGroup)
	le.PutUint32(b[0x024:], blocksPerGroup)
	le.PutUint32(b[0x028:], inodesPerGroup)
	le.PutUint16(b[0x036:], 0xFFFF)
	le.PutUint16(b[0x038:], superMagic)
	le.PutUint16(b[0x03A:], stateValid)
	le.PutUint16(b[0x03C:], errorsRO)
	le.PutUint32(b[0x04C:], revDynamic)
	le.PutUint32(b[0x054:], firstInode)
	le.PutUint16(b[0x058:], inodeSize)
	compat := uint32(compatExtAttr | compatDirIndex | compatSparseSuper2)
	if l.Journal {
		compat |= compatHasJournal
		le.PutUint32(b[0x0E0:], journalInode)
		b[0x0FD] = 1
		inode := l.journalInode()
		copy(b[0x10C:], inode[0x28:0x64])
		le.PutUint32(b[0x10C+16*4:], le.Uint32(inode[0x04:])) // i_size; its upper half, before it, is 0
	}
	le.PutUint32(b[0x05C:], compat)
	le.PutUint32(b[0x060:], incompatFiletype|incompatExtents)
	le.PutUint32(b[0x064:], roLargeFile|roHugeFile|roGroupCRC|roDirNlink|roExtraIsize)
	copy(b[0x068:], l.UUID[:])
	copy(b[0x0EC:], l.UUID[:])
	b[0x0FC] = hashHalfMD4
	le.PutUint16(b[0x15C:], extraIsize)
	le.PutUint16(b[0x15E:], extraIsize)
	le.PutUint32(b[0x160:], signedHash)
	return block
}

// Flags of a group descriptor: what was never written.
const (
	inodeUninit = 1
	blockUninit = 2
)

// descriptors returns the group descriptors, in whole blocks.
//
//	offset  size  field
//	0x00    4     block of the block bitmap
//	0x04    4     block of the inode bitmap
//	0x08    4     first block of the inode table
//	0x0C    2     free blocks
//	0x0E    2     free inodes
//	0x10    2     directories
//	0x12    2     flags
//	0x1C    2     inodes at the table's end that were never used
//	0x1E    2     CRC-16 of UUID, group number and the bytes before
func (l layout) descriptors() []byte {
	table := make([]byte, l.gdt*BlockSize)
	for g := range l.groups {
		b := table[g*descriptorSize:][:descriptorSize]
		le.PutUint32(b[0x00:], l.groupStart(g))
		le.PutUint32(b[0x04:], l.groupStart(g)+1)
		le.PutUint32(b[0x08:], l.groupStart(g)+2)
		le.PutUint16(b[0x0C:], uint16(l.groupBlocks(g)-l.usedBlocks(g)))
		free, flags := uint16(inodesPerGroup), uint16(inodeUninit|blockUninit)
		switch g {
		case 0:
			free, flags = inodesPerGroup-(firstInode-1), 0
			le.PutUint16(b[0x10:], 1) // the root
		case l.groups - 1:
			flags = inodeUninit // e2fsck's rule: the bitmap tells where the end is
		}
		le.PutUint16(b[0x0E:], free)
		le.PutUint16(b[0x12:], flags)
		le.PutUint16(b[0x1C:], free)
		var number [4]byte
		le.PutUint32(number[:], g)
		crc := crc16(0xFFFF, l.UUID[:])
		crc = crc16(crc, number[:])
		le.PutUint16(b[0x1E:], crc16(crc, b[:0x1E]))
	}
	return table
}

// crc16 is CRC-16/ARC's, continued from crc. Source: Linux 6.12, lib/crc16.c.
func crc16(crc uint16, data []byte) uint16 {
	for _, c := range data {
		crc ^= uint16(c)
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low != 0 {
				crc ^= 0xA001
			}
		}
	}
	return crc
}

// inodes returns the inode table's first block: all inodes that are reserved.
func (l layout) inodes() []byte {
	b := make([]byte, BlockSize)
	copy(b[(rootInode-1)*inodeSize:], inode(0o040755, 2, l.root, 1))
	if l.Journal {
		copy(b[(journalInode-1)*inodeSize:], l.journalInode())
	}
	return b
}

func (l layout) journalInode() []byte { return inode(0o100600, 1, l.journal, l.nJournal) }

const usesExtents = 0x80000 // flag

// inode returns an inode of root's whose content stands in one extent.
//
//	offset  size  field
//	0x00    2     type and mode
//	0x04    4     size in bytes
//	0x1A    2     links
//	0x1C    4     size in sectors of 512 bytes
//	0x20    4     flags
//	0x28    12    extent header: magic, entries, most entries, depth, generation
//	0x34    12    extent: block of the file, length, where (upper 16 bits, lower 32)
//	0x80    2     extra bytes
func inode(mode, links uint16, start, blocks uint32) []byte {
	b := make([]byte, inodeSize)
	le.PutUint16(b[0x00:], mode)
	le.PutUint32(b[0x04:], blocks*BlockSize)
	le.PutUint16(b[0x1A:], links)
	le.PutUint32(b[0x1C:], blocks*BlockSize/512)
	le.PutUint32(b[0x20:], usesExtents)
	le.PutUint16(b[0x28:], 0xF30A)
	le.PutUint16(b[0x2A:], 1)
	le.PutUint16(b[0x2C:], 4)
	le.PutUint16(b[0x38:], uint16(blocks))
	le.PutUint32(b[0x3C:], start)
	le.PutUint16(b[0x80:], extraIsize)
	return b
}

// rootDirectory returns the root's one block: "." and "..", which are itself.
//
//	offset  size  field
//	0x00    4     inode
//	0x04    2     length of the entry
//	0x06    1     length of the name
//	0x07    1     type: 2 is a directory
//	0x08    …     name
func rootDirectory() []byte {
	b := make([]byte, BlockSize)
	at := 0
	for _, e := range []struct {
		name   string
		length uint16
	}{{".", 12}, {"..", BlockSize - 12}} {
		le.PutUint32(b[at:], rootInode)
		le.PutUint16(b[at+4:], e.length)
		b[at+6], b[at+7] = byte(len(e.name)), 2
		copy(b[at+8:], e.name)
		at += int(e.length)
	}
	return b
}

// writeJournal writes an empty journal: its superblock and zeros, since after a
// crash the driver reads on until it finds what is no journal.
//
//	offset  size  field (big-endian)
//	0x00    4     magic
//	0x04    4     type: 4 is a superblock of version 2
//	0x0C    4     block size
//	0x10    4     blocks
//	0x14    4     first block of the log
//	0x18    4     sequence number that comes first
//	0x30    16    UUID
//	0x40    4     file systems that use it
//
// Source: Linux 6.12, include/linux/jbd2.h.
func (l layout) writeJournal(w io.WriterAt) error {
	if !l.Journal {
		return nil
	}
	const chunk = 256 // blocks at a time
	zeros := make([]byte, chunk*BlockSize)
	for at := uint32(0); at < l.nJournal; at += chunk {
		if err := writeBlocks(w, l.journal+at, zeros[:min(chunk, l.nJournal-at)*BlockSize]); err != nil {
			return err
		}
	}
	be := binary.BigEndian
	b := make([]byte, BlockSize)
	be.PutUint32(b[0x00:], 0xC03B3998)
	be.PutUint32(b[0x04:], 4)
	be.PutUint32(b[0x0C:], BlockSize)
	be.PutUint32(b[0x10:], l.nJournal)
	be.PutUint32(b[0x14:], 1)
	be.PutUint32(b[0x18:], 1)
	copy(b[0x30:], l.UUID[:])
	be.PutUint32(b[0x40:], 1)
	return writeBlocks(w, l.journal, b)
}
