package erofs

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
)

// WriteTo writes the image, Blocks of them, from the first byte to the last.
func (img *Image) WriteTo(w io.Writer) (int64, error) {
	out := &writer{w: w}
	out.pad(superOffset)
	out.write(img.superblock())
	for _, ino := range img.order {
		out.pad(ino.pos)
		out.write(ino.encode())
		img.tail(out, ino)
	}
	out.pad(roundUp(img.pos, BlockSize))
	for _, ino := range img.order {
		if ino.Mode.IsDir() && ino.block != noBlock {
			out.write(dirBlocks(ino)[:ino.size-ino.tail])
			out.align()
		}
	}
	for _, ino := range img.order {
		switch {
		case ino.Mode.IsDir() || ino.block == noBlock:
		case ino.Mode.Type() == fs.ModeSymlink:
			out.write([]byte(ino.Target))
		case ino.Content.Holes != nil:
			out.chunks(ino.Content)
		default:
			out.content(ino.Content, 0, ino.size-ino.tail)
		}
		out.align()
	}
	if out.err == nil && out.n != img.blocks*BlockSize {
		out.err = fmt.Errorf("%d bytes written, planned were %d blocks", out.n, img.blocks)
	}
	return out.n, out.err
}

// tail writes what stands behind an inode.
func (img *Image) tail(out *writer, ino *Inode) {
	switch {
	case ino.Content.Holes != nil:
		out.write(ino.chunkAddrs())
	case ino.tail == 0:
	case ino.Mode.IsDir():
		out.write(dirBlocks(ino)[ino.size-ino.tail:])
	case ino.Mode.Type() == fs.ModeSymlink:
		out.write([]byte(ino.Target))
	default:
		out.content(ino.Content, ino.size-ino.tail, ino.tail)
	}
}

// writer counts, and stops at the first error.
type writer struct {
	w   io.Writer
	n   int64
	err error
}

func (w *writer) write(p []byte) {
	if w.err == nil {
		var n int
		n, w.err = w.w.Write(p)
		w.n += int64(n)
	}
}

var zeros [BlockSize]byte

// pad writes zeros up to pos.
func (w *writer) pad(pos int64) {
	for w.err == nil && w.n < pos {
		w.write(zeros[:min(pos-w.n, BlockSize)])
	}
}

func (w *writer) align() { w.pad(roundUp(w.n, BlockSize)) }

func (w *writer) content(c Content, offset, size int64) {
	if w.err != nil {
		return
	}
	n, err := io.Copy(w.w, io.NewSectionReader(c.From, c.Offset+offset, size))
	w.n += n
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	w.err = err
}

func (w *writer) chunks(c Content) {
	chunk := HoleSize(c.Size)
	for i, hole := range c.Holes {
		if !hole {
			at := int64(i) * chunk
			w.content(c, at, min(chunk, c.Size-at))
			w.align()
		}
	}
}

// Superblock.
//
//	offset  size  field
//	     0     4  magic
//	     4     4  checksum: 0, dm-verity has a better one
//	     8     4  compatible features: times are those of modification
//	    12     1  block size, as a power of two
//	    14     2  number of the root's inode
//	    16     8  inodes
//	    24    12  build time: 0
//	    36     4  blocks
//	    40     4  where inodes' numbers begin: block 0
//	    48    32  UUID and volume name: 0
//	    80     4  incompatible features: chunks
//	    84    44  0
//
// Source: Linux 6.12, fs/erofs/erofs_fs.h, struct erofs_super_block.
const (
	superOffset = 1024
	superSize   = 128

	magic          = 0xe0f5e1e2
	featureMtime   = 0x2 // compatible
	featureChunked = 0x4 // incompatible
)

var le = binary.LittleEndian

func (img *Image) superblock() []byte {
	b := make([]byte, superSize)
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[8:], featureMtime)
	b[12] = blockBits
	le.PutUint16(b[14:], uint16(img.root.nid()))
	le.PutUint64(b[16:], uint64(len(img.order)))
	le.PutUint32(b[36:], uint32(img.blocks))
	if img.holes {
		le.PutUint32(b[80:], featureChunked)
	}
	return b
}

// blockBits is the block size as a power of two.
var blockBits = byte(bits.TrailingZeros(BlockSize))
