// Package ext4 writes an empty ext4 file system, so that the agent needs no
// mkfs. The kernel's driver does the rest.
//
// The file system is as plain as the driver permits: blocks of 4096 bytes,
// 32-bit block numbers, no flexible groups, no copies of the superblock, and
// checksums for group descriptors alone: the disk below authenticates every
// block. For the same reason no block is ever read before it was written:
// what the driver may read at any time is written here; bitmaps and inode tables
// of groups between the first and the last are marked as never written.
//
// The package does not check what is on the disk, and neither reads nor mends
// a file system.
package ext4

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Sizes. Source: Linux 6.12, Documentation/filesystems/ext4.
const (
	BlockSize = 4096 // bytes

	blocksPerGroup = 8 * BlockSize // as many as a bitmap of one block counts
	inodeSize      = 256           // bytes
	inodesPerGroup = 8192          // one for 16 KiB, as mke2fs
	tableBlocks    = inodesPerGroup * inodeSize / BlockSize
	ownBlocks      = 2 + tableBlocks // of a group: two bitmaps and the inode table
	descriptorSize = 32              // bytes

	rootInode    = 2
	journalInode = 8
	firstInode   = 11 // those below are reserved

	// MinSize has room for a group's metadata and the smallest journal.
	MinSize = 32 << 20 // bytes
	// MaxSize has group descriptors that fit the first group.
	MaxSize = 8 << 40 // bytes
	// minTail is the least of a last group that is worth its metadata, as mke2fs.
	minTail = ownBlocks + 50
)

// Options of a file system.
type Options struct {
	UUID [16]byte
	// Journal makes the file system survive that the guest is ended at any
	// moment. One that nothing mounts again needs none.
	Journal bool
}

// Format writes an empty file system of size bytes to w. The superblock comes
// last, after sync: a disk on which the work was not finished holds none.
func Format(w io.WriterAt, size uint64, o Options, sync func() error) error {
	l, err := newLayout(size, o)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		what  string
		block uint32
		data  []byte
	}{
		{"group descriptors", 1, l.descriptors()},
		{"block bitmap", l.groupStart(0), l.blockBitmap(0)},
		{"last block bitmap", l.groupStart(l.groups - 1), l.blockBitmap(l.groups - 1)},
		{"inode bitmap", l.groupStart(0) + 1, inodeBitmap()},
		{"inode table", l.groupStart(0) + 2, l.inodes()},
		{"root directory", l.root, rootDirectory()},
	} {
		if err := writeBlocks(w, part.block, part.data); err != nil {
			return fmt.Errorf("ext4: writing the %s: %w", part.what, err)
		}
	}
	if err := l.writeJournal(w); err != nil {
		return fmt.Errorf("ext4: writing the journal: %w", err)
	}
	if err := sync(); err != nil {
		return fmt.Errorf("ext4: %w", err)
	}
	if err := writeBlocks(w, 0, l.superblock()); err != nil {
		return fmt.Errorf("ext4: writing the superblock: %w", err)
	}
	if err := sync(); err != nil {
		return fmt.Errorf("ext4: %w", err)
	}
	return nil
}

// layout is where everything stands.
//
//	block   0                       superblock
//	        1                       group descriptors
//	        1+n                     group 0: bitmaps, inode table
//	                                root directory
//	                                journal
//	        32768·g                 group g: bitmaps, inode table
type layout struct {
	Options
	blocks   uint32 // of the file system
	groups   uint32
	gdt      uint32 // blocks of group descriptors
	root     uint32 // block of the root directory
	journal  uint32 // first block of the journal
	nJournal uint32 // blocks of the journal
}

func newLayout(size uint64, o Options) (layout, error) {
	if size < MinSize || size > MaxSize {
		return layout{}, fmt.Errorf("ext4: %d bytes are not between %d and %d", size, MinSize, uint64(MaxSize))
	}
	l := layout{Options: o, blocks: uint32(size / BlockSize)}
	if tail := l.blocks % blocksPerGroup; tail < minTail && l.blocks > blocksPerGroup {
		l.blocks -= tail
	}
	l.groups = (l.blocks + blocksPerGroup - 1) / blocksPerGroup
	l.gdt = (l.groups*descriptorSize + BlockSize - 1) / BlockSize
	l.root = l.groupStart(0) + ownBlocks
	l.journal = l.root + 1
	if o.Journal {
		l.nJournal = journalBlocks(l.blocks)
	}
	return l, nil
}

// journalBlocks is what mke2fs gives, up to 32 MiB.
func journalBlocks(blocks uint32) uint32 {
	switch {
	case blocks < 128<<20/BlockSize:
		return 4 << 20 / BlockSize
	case blocks < 1<<30/BlockSize:
		return 16 << 20 / BlockSize
	}
	return 32 << 20 / BlockSize
}

// groupStart is where a group's bitmaps and its inode table begin.
func (l layout) groupStart(group uint32) uint32 {
	if group == 0 {
		return 1 + l.gdt
	}
	return group * blocksPerGroup
}

// groupBlocks are the blocks of a group.
func (l layout) groupBlocks(group uint32) uint32 {
	return min(blocksPerGroup, l.blocks-group*blocksPerGroup)
}

// usedBlocks are the blocks of a group that are not free.
func (l layout) usedBlocks(group uint32) uint32 {
	if group == 0 {
		return l.journal + l.nJournal
	}
	return ownBlocks
}

func (l layout) freeBlocks() uint32 {
	free := uint32(0)
	for g := range l.groups {
		free += l.groupBlocks(g) - l.usedBlocks(g)
	}
	return free
}

func writeBlocks(w io.WriterAt, block uint32, data []byte) error {
	_, err := w.WriteAt(data, int64(block)*BlockSize)
	return err
}

// blockBitmap is a group's: what is used stands at its beginning. Bits beyond
// the file system's end are set.
func (l layout) blockBitmap(group uint32) []byte {
	b := make([]byte, BlockSize)
	setBits(b, 0, l.usedBlocks(group))
	setBits(b, l.groupBlocks(group), blocksPerGroup)
	return b
}

func inodeBitmap() []byte {
	b := make([]byte, BlockSize)
	setBits(b, 0, firstInode-1)
	setBits(b, inodesPerGroup, 8*BlockSize)
	return b
}

func setBits(b []byte, from, to uint32) {
	for i := from; i < to; i++ {
		b[i/8] |= 1 << (i % 8)
	}
}

var le = binary.LittleEndian
