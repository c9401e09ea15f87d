package archive

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// bufferSize is how much of a file is copied at a time, in bytes.
const bufferSize = 256 << 10

// packer writes one archive.
type packer struct {
	tar    *tar.Writer
	links  map[inode]string // names of files that have several
	buffer []byte
}

type inode struct{ device, number uint64 }

// Pack writes a tar archive of a path and what is below it. Symbolic links stay links,
// sockets are left out, and so is what vanishes meanwhile.
func Pack(w io.Writer, path string) error {
	root, name, err := resolve(path)
	if err != nil {
		return err
	}
	p := &packer{tar.NewWriter(w), map[inode]string{}, make([]byte, bufferSize)}
	if err := filepath.WalkDir(root, func(file string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = p.add(file, name+strings.TrimPrefix(file, root))
		}
		if errors.Is(err, fs.ErrNotExist) && file != root {
			return nil
		}
		return err
	}); err != nil {
		return err
	}
	return p.tar.Close()
}

// nameless keeps package tar from looking for users' names in the container's files.
type nameless struct{ fs.FileInfo }

// Uname is no name.
func (nameless) Uname() (string, error) { return "", nil }

// Gname is no name.
func (nameless) Gname() (string, error) { return "", nil }

func (p *packer) add(file, name string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	switch {
	case info.Mode().IsRegular():
		return p.addRegular(file, name)
	case info.Mode()&fs.ModeSocket != 0:
		return nil
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	_, err = p.header(file, name, link, info)
	return err
}

// header writes the header of one file, and says whether its content comes next.
func (p *packer) header(file, name, link string, info fs.FileInfo) (content bool, err error) {
	h, err := tar.FileInfoHeader(nameless{info}, link)
	if err != nil {
		return false, err
	}
	h.Format, h.Name = tar.FormatPAX, name
	if info.IsDir() && !strings.HasSuffix(name, "/") {
		h.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := p.links[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			p.links[key] = h.Name
		}
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir {
		if h.PAXRecords, err = attributes(file); err != nil {
			return false, err
		}
	}
	return h.Size > 0, p.tar.WriteHeader(h)
}

func (p *packer) addRegular(file, name string) error {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "archive", Path: file, Err: errors.New("it was replaced meanwhile")}
	}
	content, err := p.header(file, name, "", info)
	if err != nil || !content {
		return err
	}
	// A file that grows is cut, and one that shrinks is an error.
	n, err := io.CopyBuffer(struct{ io.Writer }{p.tar}, struct{ io.Reader }{io.LimitReader(f, info.Size())}, p.buffer)
	if err == nil && n < info.Size() {
		err = &fs.PathError{Op: "archive", Path: file, Err: errors.New("it became shorter meanwhile")}
	}
	return err
}

// xattrPrefix is that of PAX records for extended attributes, as GNU tar's and star's.
const xattrPrefix = "SCHILY.xattr."

// kept says which extended attributes go with a file: capabilities, and users' own.
func kept(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.")
}

// attributes returns a file's extended attributes as PAX records.
func attributes(file string) (map[string]string, error) {
	list := make([]byte, 64<<10) // the kernel's XATTR_LIST_MAX
	n, err := unix.Llistxattr(file, list)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil, nil
	} else if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: file, Err: err}
	}
	records := map[string]string{}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if !kept(name) {
			continue
		}
		n, err := unix.Lgetxattr(file, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		} else if err != nil {
			return nil, &fs.PathError{Op: "getxattr " + name, Path: file, Err: err}
		}
		records[xattrPrefix+name] = string(value[:n])
	}
	return records, nil
}
