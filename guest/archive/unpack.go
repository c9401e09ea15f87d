package archive

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Owner is whose what is unpacked becomes.
type Owner struct{ UID, GID int }

// Options are docker's for an archive that is unpacked.
type Options struct {
	// KeepKinds refuses to replace a folder by what is none, and the other way round.
	KeepKinds bool
	// Owner takes the place of the archive's owners, if not nil.
	Owner *Owner
}

// unpacker writes what an archive holds.
type unpacker struct {
	Options
	root   *os.Root
	buffer []byte
	dirs   []dir // whose times are set in the end
}

type dir struct {
	name string
	time time.Time
}

// Unpack writes what a tar archive, plain or in gzip, holds into a folder that exists.
// What is there under a name of the archive is replaced, folders are merged. Symbolic
// links in the path of the folder are followed; the archive's own are made as they are,
// and followed only below the folder. An error leaves what was written before it; a file
// is there whole or not at all. The error is a *RefusedError where the archive is
// malformed or asks for what is not given.
func Unpack(folder string, r io.Reader, o Options) error {
	if info, err := os.Stat(folder); err != nil {
		return err
	} else if !info.IsDir() {
		return refused("%.200q is not a directory", folder)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	r, err = decompressed(r)
	if err != nil {
		return err
	}
	u := &unpacker{Options: o, root: root, buffer: make([]byte, bufferSize)}
	archive := tar.NewReader(r)
	for n := 1; ; n++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return refused("archive: entry %d: %v", n, err)
		}
		if err := u.entry(h, archive); err != nil {
			return fmt.Errorf("archive: entry %d, %.200q: %w", n, h.Name, outside(err))
		}
	}
	// Behind its end there is padding: the other side wants to write it.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return refused("archive: behind its end: %v", err)
	}
	for _, d := range slices.Backward(u.dirs) {
		if err := root.Chtimes(d.name, time.Time{}, d.time); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func refused(format string, args ...any) *RefusedError {
	return &RefusedError{fmt.Sprintf(format, args...)}
}

// decompressed looks for gzip's magic (RFC 1952, section 2.3.1).
func decompressed(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, bufferSize)
	magic, _ := b.Peek(2) // what is shorter is no tar either
	if string(magic) != "\x1f\x8b" {
		return b, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, refused("archive: %v", err)
	}
	return z, nil
}

// entry writes one file.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil || name == "." {
		return err // the folder itself stays as it is
	}
	if err := u.clear(name, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	if parent := path.Dir(name); parent != "." {
		if err := u.root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return u.regular(name, h, content)
	case tar.TypeDir:
		return u.folder(name, h)
	case tar.TypeSymlink:
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return u.chown(name, h)
	case tar.TypeLink:
		to, err := cleanName(h.Linkname)
		if err != nil {
			return fmt.Errorf("hard link: %w", err)
		}
		return u.root.Link(to, name)
	case tar.TypeFifo:
		if err := u.fifo(name); err != nil {
			return err
		}
		return u.attributes(name, h)
	case tar.TypeChar, tar.TypeBlock:
		return refused("a device node")
	}
	return refused("type %q is unknown", h.Typeflag)
}

// outside makes what package os says of a path that leads out of its root a refusal:
// it has no value for that.
func outside(err error) error {
	const escapes = "path escapes from parent"
	pathErr, isPath := errors.AsType[*fs.PathError](err)
	linkErr, isLink := errors.AsType[*os.LinkError](err)
	if isPath && pathErr.Err.Error() == escapes || isLink && linkErr.Err.Error() == escapes {
		return refused("a symbolic link in its path leads out of the folder")
	}
	return err
}

// cleanName takes what leads out of a folder for an attack, even where it would not.
func cleanName(name string) (string, error) {
	switch {
	case name == "" || strings.ContainsRune(name, 0):
		return "", refused("name %.200q is empty, or holds a NUL", name)
	case path.IsAbs(name):
		return "", refused("name %.200q is absolute", name)
	case slices.Contains(strings.Split(name, "/"), ".."):
		return "", refused(`name %.200q holds ".."`, name)
	}
	return path.Clean(name), nil
}

// clear removes what stands in the way of an entry.
func (u *unpacker) clear(name string, folder bool) error {
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	switch {
	case info.IsDir() && folder:
		return nil
	case info.IsDir() && u.KeepKinds:
		return refused("cannot overwrite a directory with a non-directory")
	case folder && u.KeepKinds:
		return refused("cannot overwrite a non-directory with a directory")
	}
	return u.root.RemoveAll(name)
}

func (u *unpacker) regular(name string, h *tar.Header, content io.Reader) (err error) {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = u.root.Remove(name) // it is not whole
			return
		}
		err = u.root.Chtimes(name, time.Time{}, h.ModTime)
	}()
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, reading{content}, u.buffer); err != nil {
		return err
	}
	return u.settle(f, h)
}

// reading tells what fails of an archive from what fails of a file system.
type reading struct{ io.Reader }

// Read reads of the archive.
func (r reading) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = refused("content: %v", err)
	}
	return n, err
}

func (u *unpacker) folder(name string, h *tar.Header) error {
	if err := u.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	u.dirs = append(u.dirs, dir{name, h.ModTime})
	return u.settle(f, h)
}

// settle gives an open file owner, attributes and mode, in the order in which none
// takes another away.
func (u *unpacker) settle(f *os.File, h *tar.Header) error {
	owner := u.owner(h)
	if err := f.Chown(owner.UID, owner.GID); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || !kept(name) {
			continue
		}
		if err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0); err != nil {
			return fmt.Errorf("attribute %.80q: %w", name, err)
		}
	}
	return f.Chmod(mode(h))
}

// attributes is settle for what is not opened.
func (u *unpacker) attributes(name string, h *tar.Header) error {
	if err := u.chown(name, h); err != nil {
		return err
	}
	return u.root.Chmod(name, mode(h))
}

func (u *unpacker) chown(name string, h *tar.Header) error {
	owner := u.owner(h)
	return u.root.Lchown(name, owner.UID, owner.GID)
}

func (u *unpacker) owner(h *tar.Header) Owner {
	if u.Owner != nil {
		return *u.Owner
	}
	return Owner{h.Uid, h.Gid}
}

func mode(h *tar.Header) fs.FileMode {
	return h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
}

func (u *unpacker) fifo(name string) error {
	parent, err := u.root.OpenFile(path.Dir(name), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Mkfifoat(int(parent.Fd()), path.Base(name), 0o600); err != nil {
		return &fs.PathError{Op: "mkfifo", Path: name, Err: err}
	}
	return nil
}
