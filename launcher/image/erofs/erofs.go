// Package erofs writes file systems of the format EROFS: uncompressed, with
// blocks of 4096 bytes, extended inodes and extended attributes beside them.
// Hard links share an inode, long runs of zeros take no room.
//
// The same tree gives the same bytes. They are written in one go from the first
// to the last, so that a writer may hash them as they pass; of the files'
// contents nothing is held in memory.
//
// The format is Linux 6.12's, fs/erofs/erofs_fs.h. The package reads nothing
// back, and does not check that names and attributes make sense to a kernel:
// who builds the tree does.
package erofs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// BlockSize is that of the file system, in bytes.
const BlockSize = 4096

// Inode is a file without its names. It may stand in several directories, and
// more than once in one, unless it is a directory.
type Inode struct {
	Mode     fs.FileMode // set-uid, set-gid and sticky bit included
	UID, GID uint32
	Mtime    time.Time
	Rdev     uint32            // of a device, as Linux' new_encode_dev gives it
	Target   string            // of a symbolic link, at most 4095 bytes
	Xattrs   map[string]string // by the name that getxattr takes
	Content  Content           // of a regular file
	Entries  []Entry           // of a directory, sorted by name, without "." and ".."

	placed
}

// Entry is a name in a directory.
type Entry struct {
	Name string // 1 to 255 bytes
	*Inode
}

// Content is where a regular file's bytes stand.
type Content struct {
	From         io.ReaderAt
	Offset, Size int64 // in bytes
	// Holes are the chunks of HoleSize(Size) bytes that hold zeros alone; nil if
	// there are none. They are not read.
	Holes []bool
}

// placed is where an inode comes to stand.
type placed struct {
	pos    int64  // of the inode, in bytes from the start; 0 is not yet placed
	ino    uint32 // a number for system calls with 32-bit ones
	nlink  uint32
	parent *Inode // of a directory
	size   int64
	tail   int64  // bytes behind the inode instead of in a block of their own
	block  uint32 // where the rest begins
}

// Image is a tree that has been laid out.
type Image struct {
	root   *Inode
	order  []*Inode // as they stand in the image
	pos    int64    // end of the inodes
	blocks int64    // of the whole image
	holes  bool
}

// rootPos is where the root's inode stands: behind the superblock's block. Its
// number has 16 bits, and is not 0, which readdir skips.
const rootPos = BlockSize

// maxTail is how much of a file's or directory's end stands behind its inode;
// more leaves too much of the block empty where the next does not fit.
const maxTail = 2048

// noBlock stands for a hole, and for what has no block.
// Source: Linux 6.12, fs/erofs/erofs_fs.h, EROFS_NULL_ADDR.
const noBlock = 0xffffffff

// ErrTooBig says that an image has more blocks than 32 bits count: 16 TiB.
var ErrTooBig = errors.New("more than 2^32 blocks")

// Plan lays out the tree below root, a directory. Nothing in it may change
// until the image is written.
func Plan(root *Inode) (*Image, error) {
	if !root.Mode.IsDir() {
		return nil, errors.New("the root is not a directory")
	}
	img := &Image{root: root, pos: rootPos}
	if err := img.placeDir(root, root); err != nil {
		return nil, err
	}
	img.blocks = (img.pos + BlockSize - 1) / BlockSize
	// Directories first: who walks the tree reads no file.
	for _, dirs := range []bool{true, false} {
		for _, ino := range img.order {
			if ino.Mode.IsDir() == dirs {
				ino.block = noBlock
				if n := ino.ownBlocks(); n > 0 {
					ino.block = uint32(min(img.blocks, noBlock))
					img.blocks += n
				}
			}
		}
	}
	if img.blocks > noBlock {
		return nil, ErrTooBig
	}
	return img, nil
}

// Blocks returns the image's size, in blocks.
func (img *Image) Blocks() int64 { return img.blocks }

func (img *Image) placeDir(dir, parent *Inode) error {
	dir.parent = parent
	dir.nlink = 1 // its own "."
	dir.size = dirSize(dir)
	if dir != img.root {
		parent.nlink++ // its ".."
	}
	if err := img.place(dir); err != nil {
		return err
	}
	dir.nlink++
	for _, e := range dir.Entries {
		switch {
		case e.Mode.IsDir() && e.pos != 0:
			return fmt.Errorf("%q: a directory with two names", e.Name)
		case e.Mode.IsDir():
			if err := img.placeDir(e.Inode, dir); err != nil {
				return err
			}
			continue
		case e.pos == 0:
			e.size = e.Content.Size
			if e.Mode.Type() == fs.ModeSymlink {
				e.size = int64(len(e.Target))
			}
			if err := img.place(e.Inode); err != nil {
				return err
			}
		}
		e.nlink++
	}
	return nil
}

// place gives the inode the next room among the inodes.
func (img *Image) place(ino *Inode) error {
	if _, err := fileType(ino.Mode); err != nil {
		return err
	}
	if ino.Mode.IsRegular() {
		if err := ino.Content.check(); err != nil {
			return err
		}
	}
	if err := checkXattrs(ino.Xattrs); err != nil {
		return err
	}
	head := inodeSize + xattrSize(ino.Xattrs)
	ino.tail = ino.inline(head)
	// Multiples of the inode's size: none lies across two blocks.
	img.pos = roundUp(img.pos, inodeSize)
	if ino.tail > 0 && img.pos%BlockSize+head+ino.tail > BlockSize {
		img.pos = roundUp(img.pos, BlockSize)
	}
	ino.pos = img.pos
	img.order = append(img.order, ino)
	ino.ino = uint32(len(img.order))
	img.pos += head + ino.tail
	if ino.Content.Holes != nil {
		img.pos += chunkAddrSize * int64(len(ino.Content.Holes))
		img.holes = true
	}
	return nil
}

// inline returns how many bytes of the inode's end stand behind its head.
func (ino *Inode) inline(head int64) int64 {
	tail := ino.size % BlockSize
	limit := int64(maxTail)
	if ino.Mode.Type() == fs.ModeSymlink {
		limit = BlockSize // the kernel follows such a link without another block
	}
	if ino.Content.Holes != nil || tail > limit || head+tail > BlockSize {
		return 0
	}
	return tail
}

// ownBlocks returns how many blocks the inode's content has for itself.
func (ino *Inode) ownBlocks() int64 {
	if ino.Content.Holes == nil {
		return (ino.size - ino.tail + BlockSize - 1) / BlockSize
	}
	var n int64
	for i := range ino.Content.Holes {
		n += ino.Content.chunkBlocks(i)
	}
	return n
}

// The smallest and the most chunks of a file with holes. Each takes four bytes.
const (
	minChunk  = 64 << 10
	maxChunks = 1 << 20
)

// HoleSize returns the size of the chunks that may be holes in a file of size
// bytes: 64 KiB, more above 64 GiB.
func HoleSize(size int64) int64 {
	chunk := int64(minChunk)
	for size > chunk*maxChunks {
		chunk *= 2
	}
	return chunk
}

func (c *Content) check() error {
	if c.Size < 0 {
		return fmt.Errorf("content of %d bytes", c.Size)
	}
	chunk := HoleSize(c.Size)
	if n := (c.Size + chunk - 1) / chunk; c.Holes != nil && int64(len(c.Holes)) != n {
		return fmt.Errorf("content of %d bytes with %d chunks, want %d", c.Size, len(c.Holes), n)
	}
	return nil
}

// chunkBlocks returns how many blocks chunk i takes.
func (c *Content) chunkBlocks(i int) int64 {
	if c.Holes[i] {
		return 0
	}
	chunk := HoleSize(c.Size)
	return (min(chunk, c.Size-int64(i)*chunk) + BlockSize - 1) / BlockSize
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
