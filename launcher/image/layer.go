package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"

	"github.com/kraudcloud/kattest/launcher/image/erofs"
)

// item is an entry of a layer. A whiteout has neither link nor inode.
type item struct {
	n     int // of the entry in its layer
	name  string
	link  string       // what a hard link names
	inode *erofs.Inode // of anything else
}

// index reads a layer, a tar stream, whose bytes stand in plain as well; the
// contents of files that tar holds without their holes go to sparse.
func index(ctx context.Context, layer io.Reader, plain io.ReaderAt, sparse *spool) ([]item, error) {
	counted := &countReader{r: layer}
	x := &indexer{ctx: ctx, tr: tar.NewReader(counted), counted: counted, plain: plain, sparse: sparse}
	var items []item
	for n := 0; ; n++ {
		h, err := x.tr.Next()
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err != nil {
			return nil, fmt.Errorf("tar entry %d: %w", n, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if len(items) == maxItems {
			return nil, fmt.Errorf("more than %d tar entries", maxItems)
		}
		it := item{n: n, name: h.Name}
		switch {
		case isWhiteout(h.Name):
		case h.Typeflag == tar.TypeLink:
			it.link = h.Linkname
		default:
			if it.inode, err = x.inode(h); err != nil {
				return nil, it.wrap(err)
			}
		}
		items = append(items, it)
	}
}

// maxItems bounds the entries of one layer, whiteouts and what is replaced included.
const maxItems = 2 * maxEntries

func (it item) wrap(err error) error {
	return fmt.Errorf("tar entry %d, %.256q: %w", it.n, it.name, err)
}

// apply merges one layer over the tree.
func (t *tree) apply(layer []item) error {
	t.layer++
	for _, it := range layer {
		if err := t.applyItem(it); err != nil {
			return it.wrap(err)
		}
	}
	return nil
}

func (t *tree) applyItem(it item) error {
	parts, err := split(it.name)
	if err != nil {
		return err
	}
	if done, err := t.whiteout(parts); done || err != nil {
		return err
	}
	ino := it.inode
	if ino == nil {
		if ino, err = t.link(it.link); err != nil {
			return err
		}
	}
	return t.put(parts, ino)
}

// isWhiteout says whether the last part of a tar entry's name is a whiteout's.
func isWhiteout(name string) bool {
	parts, err := split(name)
	return err == nil && len(parts) > 0 && strings.HasPrefix(parts[len(parts)-1], whiteoutPrefix)
}

// indexer finds the contents of a tar stream's files.
type indexer struct {
	ctx     context.Context
	tr      *tar.Reader
	counted *countReader
	plain   io.ReaderAt
	sparse  *spool
	chunk   []byte
}

func (x *indexer) inode(h *tar.Header) (*erofs.Inode, error) {
	ino, err := newInode(h)
	if err == nil && ino.Mode.IsRegular() {
		ino.Content, err = x.content(h)
	}
	return ino, err
}

// content finds out where a file's bytes stand, and which of them are holes,
// whether tar knows of them or wrote zeros.
func (x *indexer) content(h *tar.Header) (erofs.Content, error) {
	// tar.Reader reads no further than the header it returns.
	c := erofs.Content{From: x.plain, Offset: x.counted.n, Size: h.Size}
	known := isSparse(h)
	if known {
		c.From, c.Offset = x.sparse, x.sparse.end
		if c.Size > maxSparse-c.Offset {
			return erofs.Content{}, fmt.Errorf("sparse file of %d bytes, more than %d with those before it", c.Size, maxSparse)
		}
	}
	chunk := erofs.HoleSize(c.Size)
	if !known && c.Size < chunk {
		return c, nil
	}
	if int64(cap(x.chunk)) < chunk {
		x.chunk = make([]byte, chunk)
	}
	var holes []bool
	found := false
	for at := int64(0); at < c.Size; at += chunk {
		buf := x.chunk[:min(chunk, c.Size-at)]
		if _, err := io.ReadFull(x.tr, buf); err != nil {
			return erofs.Content{}, err
		}
		if err := x.ctx.Err(); err != nil { // zeros that tar makes up are read from nowhere
			return erofs.Content{}, err
		}
		hole := isZero(buf)
		holes = append(holes, hole)
		found = found || hole
		if known && !hole {
			if err := x.sparse.writeAt(buf, c.Offset+at); err != nil {
				return erofs.Content{}, err
			}
		}
	}
	if known {
		x.sparse.end += c.Size
	}
	if found {
		c.Holes = holes
	}
	return c, nil
}

// maxSparse bounds the size of a layer's sparse files, holes included.
const maxSparse = 1 << 44

// isSparse says whether tar holds the file without its holes.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

func isZero(b []byte) bool {
	// Most differ at once; the rest is compared with itself, a byte on.
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// newInode reads an entry's metadata.
func newInode(h *tar.Header) (*erofs.Inode, error) {
	mode, err := fileMode(h)
	if err != nil {
		return nil, err
	}
	if h.Uid < 0 || h.Uid > math.MaxUint32 || h.Gid < 0 || h.Gid > math.MaxUint32 {
		return nil, fmt.Errorf("owner %d:%d is not of 32 bits", h.Uid, h.Gid)
	}
	attrs, err := xattrs(h)
	if err != nil {
		return nil, err
	}
	ino := &erofs.Inode{Mode: mode, UID: uint32(h.Uid), GID: uint32(h.Gid), Mtime: h.ModTime, Xattrs: attrs}
	switch mode.Type() {
	case fs.ModeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPath {
			return nil, fmt.Errorf("symbolic link with a target of %d bytes, want 1 to %d", len(h.Linkname), maxPath)
		}
		ino.Target = h.Linkname
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		if ino.Rdev, err = device(h.Devmajor, h.Devminor); err != nil {
			return nil, err
		}
	}
	return ino, nil
}

func fileMode(h *tar.Header) (fs.FileMode, error) {
	mode := fs.FileMode(h.Mode & 0o777)
	for bit, m := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if h.Mode&bit != 0 {
			mode |= m
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
	case tar.TypeDir:
		mode |= fs.ModeDir
	case tar.TypeSymlink:
		mode = fs.ModeSymlink | 0o777 // Linux knows no other
	case tar.TypeChar:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case tar.TypeBlock:
		mode |= fs.ModeDevice
	case tar.TypeFifo:
		mode |= fs.ModeNamedPipe
	default:
		return 0, fmt.Errorf("entry of type %q is not supported", h.Typeflag)
	}
	return mode, nil
}

// device encodes a device number as EROFS stores it.
// Source: Linux 6.12, include/linux/kdev_t.h, new_encode_dev.
func device(major, minor int64) (uint32, error) {
	if major < 0 || major >= 1<<12 || minor < 0 || minor >= 1<<20 {
		return 0, fmt.Errorf("device %d:%d is not of 12 and 20 bits", major, minor)
	}
	return uint32(minor&0xff | major<<8 | (minor&^0xff)<<12), nil
}
