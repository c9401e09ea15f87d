package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
)

// spool holds the content of regular files, one behind the other.
type spool struct {
	w     io.Writer
	size  int64
	limit int64 // bytes
}

// keep copies n bytes of a file and returns where they stand.
func (s *spool) keep(r io.Reader, n int64) (offset int64, err error) {
	if n > s.limit-s.size {
		return 0, fmt.Errorf("file of %d bytes: %w (%d bytes used of %d)", n, ErrNoSpace, s.size, s.limit)
	}
	offset = s.size
	written, err := io.CopyN(s.w, r, n)
	s.size += written
	return offset, err
}

// ErrNoSpace says that the disk is too small for the image.
var ErrNoSpace = errors.New("no space for the image's files")

// apply merges one layer, a tar stream, over the tree.
func (t *tree) apply(layer io.Reader, s *spool) error {
	t.layer++
	tr := tar.NewReader(layer)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tar entry %d: %w", n, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := t.applyEntry(h, tr, s); err != nil {
			return fmt.Errorf("tar entry %d, %.256q: %w", n, h.Name, err)
		}
	}
}

func (t *tree) applyEntry(h *tar.Header, content io.Reader, s *spool) error {
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	if done, err := t.whiteout(parts); done || err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		ino, err := t.link(h.Linkname)
		if err != nil {
			return err
		}
		return t.put(parts, ino)
	}
	ino, err := newInode(h)
	if err != nil {
		return err
	}
	if ino.mode.IsRegular() {
		ino.size = h.Size
		if ino.offset, err = s.keep(content, h.Size); err != nil {
			return err
		}
	}
	return t.put(parts, ino)
}

// newInode reads an entry's metadata.
func newInode(h *tar.Header) (*inode, error) {
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
	ino := &inode{mode: mode, uid: uint32(h.Uid), gid: uint32(h.Gid), mtime: h.ModTime, xattrs: attrs}
	switch mode.Type() {
	case fs.ModeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPath {
			return nil, fmt.Errorf("symbolic link with a target of %d bytes, want 1 to %d", len(h.Linkname), maxPath)
		}
		ino.target = h.Linkname
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		if ino.rdev, err = device(h.Devmajor, h.Devminor); err != nil {
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
