package erofs

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"math/bits"
	"slices"
	"strings"
)

// Extended inode, with its extended attributes behind it.
//
//	offset  size  field
//	     0     2  format: bit 0 is 1, bits 1 to 3 are the data layout
//	     2     2  length of the attributes: 0, or 1 and a word of 4 bytes each
//	     4     2  mode, as in Linux' st_mode
//	     8     8  size in bytes
//	    16     4  first block, device number or format of chunks
//	    20     4  inode number for 32-bit programs
//	    24     4  user
//	    28     4  group
//	    32     8  modification time, seconds
//	    40     4  and nanoseconds
//	    44     4  links
//	    48    16  0
//
// Source: Linux 6.12, fs/erofs/erofs_fs.h, struct erofs_inode_extended.
const inodeSize = 64

// Data layouts. Source: ibid.
const (
	layoutPlain  = 0 // whole blocks
	layoutInline = 2 // whole blocks, and the rest behind the inode
	layoutChunks = 4 // chunks, whose addresses stand behind the inode
)

// chunkAddrSize is that of a chunk's address, in bytes.
const chunkAddrSize = 4

// nid is the inode's number: where it stands, in units of 32 bytes.
func (ino *Inode) nid() uint64 { return uint64(ino.pos / 32) }

func (ino *Inode) encode() []byte {
	b := make([]byte, inodeSize)
	layout, data := uint16(layoutPlain), ino.block
	switch {
	case ino.Content.Holes != nil:
		layout = layoutChunks
		data = uint32(bits.TrailingZeros64(uint64(HoleSize(ino.size)))) - uint32(blockBits)
	case ino.tail > 0:
		layout = layoutInline
	case ino.Mode&(fs.ModeDevice|fs.ModeNamedPipe) != 0:
		data = ino.Rdev
	}
	le.PutUint16(b[0:], 1|layout<<1)
	le.PutUint16(b[4:], unixMode(ino.Mode))
	le.PutUint64(b[8:], uint64(ino.size))
	le.PutUint32(b[16:], data)
	le.PutUint32(b[20:], ino.ino)
	le.PutUint32(b[24:], ino.UID)
	le.PutUint32(b[28:], ino.GID)
	// Times before 1970 are negative numbers.
	le.PutUint64(b[32:], uint64(ino.Mtime.Unix()))
	le.PutUint32(b[40:], uint32(ino.Mtime.Nanosecond()))
	le.PutUint32(b[44:], ino.nlink)
	if n := xattrSize(ino.Xattrs); n > 0 {
		le.PutUint16(b[2:], uint16((n-xattrHeaderSize)/4+1))
		b = appendXattrs(b, ino.Xattrs)
	}
	return b
}

// chunkAddrs returns the first block of each chunk.
func (ino *Inode) chunkAddrs() []byte {
	b := make([]byte, 0, chunkAddrSize*len(ino.Content.Holes))
	next := ino.block
	for i, hole := range ino.Content.Holes {
		if hole {
			b = le.AppendUint32(b, noBlock)
			continue
		}
		b = le.AppendUint32(b, next)
		next += uint32(ino.Content.chunkBlocks(i))
	}
	return b
}

// types are the kinds of files: as in st_mode, and as in a directory.
// Source: Linux 6.12, include/uapi/linux/stat.h, include/linux/fs_types.h.
var types = map[fs.FileMode]struct {
	mode uint16
	dir  byte
}{
	0:                                 {0o100000, 1},
	fs.ModeDir:                        {0o040000, 2},
	fs.ModeNamedPipe:                  {0o010000, 5},
	fs.ModeSymlink:                    {0o120000, 7},
	fs.ModeDevice:                     {0o060000, 4},
	fs.ModeDevice | fs.ModeCharDevice: {0o020000, 3},
}

// fileType returns the kind of file as directories give it.
func fileType(mode fs.FileMode) (byte, error) {
	t, ok := types[mode.Type()]
	if !ok {
		return 0, fmt.Errorf("a file of mode %v", mode)
	}
	return t.dir, nil
}

func unixMode(mode fs.FileMode) uint16 {
	m := types[mode.Type()].mode | uint16(mode.Perm())
	for bit, flag := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&flag != 0 {
			m |= bit
		}
	}
	return m
}

// Directory: blocks of entries of 12 bytes each, and their names behind them.
//
//	offset  size  field
//	     0     8  inode's number
//	     8     2  where the name begins in the block
//	    10     1  kind of file
//
// The names are sorted over all blocks; in a block, a name ends where the next
// begins, the last at a zero or the directory's end.
// Source: Linux 6.12, fs/erofs/erofs_fs.h, struct erofs_dirent.
const direntSize = 12

// entries returns all entries of a directory, sorted.
func (ino *Inode) entries() []Entry {
	all := append([]Entry{{".", ino}, {"..", ino.parent}}, ino.Entries...)
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// split cuts entries into those of each block.
func split(all []Entry) [][]Entry {
	var blocks [][]Entry
	used, first := 0, 0
	for i, e := range all {
		need := direntSize + len(e.Name)
		if used+need > BlockSize {
			blocks = append(blocks, all[first:i])
			used, first = 0, i
		}
		used += need
	}
	return append(blocks, all[first:])
}

func dirSize(dir *Inode) int64 {
	blocks := split(dir.entries())
	size := int64(len(blocks)-1) * BlockSize
	for _, e := range blocks[len(blocks)-1] {
		size += int64(direntSize + len(e.Name))
	}
	return size
}

func dirBlocks(dir *Inode) []byte {
	var b []byte
	for _, block := range split(dir.entries()) {
		b = append(b, make([]byte, roundUp(int64(len(b)), BlockSize)-int64(len(b)))...)
		name := direntSize * len(block)
		for _, e := range block {
			kind, _ := fileType(e.Mode) // place has asked
			b = le.AppendUint64(b, e.nid())
			b = le.AppendUint16(b, uint16(name))
			b = append(b, kind, 0)
			name += len(e.Name)
		}
		for _, e := range block {
			b = append(b, e.Name...)
		}
	}
	return b
}

// Extended attributes: a header of 12 bytes, which are 0 where none are shared,
// then for each
//
//	offset  size  field
//	     0     1  length of the name, without its prefix
//	     1     1  prefix
//	     2     2  length of the value
//	     4        name and value, in whole words of 4 bytes
//
// Source: Linux 6.12, fs/erofs/erofs_fs.h, struct erofs_xattr_entry.
const (
	xattrHeaderSize = 12
	xattrEntrySize  = 4
)

// xattrPrefixes by their numbers. Source: ibid., EROFS_XATTR_INDEX_*.
var xattrPrefixes = []struct {
	number byte
	prefix string
}{
	{1, "user."},
	{2, "system.posix_acl_access"},
	{3, "system.posix_acl_default"},
	{4, "trusted."},
	{6, "security."},
}

// XattrPrefix splits an extended attribute's name. Only names with a prefix
// that the format knows can be stored; ok says whether this is one.
func XattrPrefix(name string) (number byte, rest string, ok bool) {
	for _, p := range xattrPrefixes {
		if rest, found := strings.CutPrefix(name, p.prefix); found && strings.HasSuffix(p.prefix, ".") == (rest != "") {
			return p.number, rest, true
		}
	}
	return 0, "", false
}

// maxXattrs bounds an inode's attributes, whose words are counted in 16 bits.
const maxXattrs = 4 * (1<<16 - 2)

func checkXattrs(attrs map[string]string) error {
	for name, value := range attrs {
		if _, rest, ok := XattrPrefix(name); !ok || len(rest) > 1<<8-1 || len(value) > 1<<16-1 {
			return fmt.Errorf("extended attribute %.64q with %d bytes", name, len(value))
		}
	}
	if n := xattrSize(attrs); n > maxXattrs {
		return fmt.Errorf("extended attributes of %d bytes", n)
	}
	return nil
}

// xattrSize is what the attributes take behind an inode, in bytes.
func xattrSize(attrs map[string]string) int64 {
	if len(attrs) == 0 {
		return 0
	}
	size := int64(xattrHeaderSize)
	for name, value := range attrs {
		_, rest, _ := XattrPrefix(name)
		size += roundUp(int64(xattrEntrySize+len(rest)+len(value)), 4)
	}
	return size
}

func appendXattrs(b []byte, attrs map[string]string) []byte {
	b = append(b, make([]byte, xattrHeaderSize)...)
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		number, rest, _ := XattrPrefix(name)
		value := attrs[name]
		b = append(b, byte(len(rest)), number)
		b = le.AppendUint16(b, uint16(len(value)))
		b = append(append(b, rest...), value...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	return b
}
