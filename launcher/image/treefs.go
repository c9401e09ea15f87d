package image

import (
	"cmp"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/erofs/go-erofs"
)

// treeFS shows a tree, with its contents in a spool, as go-erofs wants to copy
// it: metadata in FileInfo.Sys, link targets through ReadLink. Names may be any
// that Linux allows, also those that fs.ValidPath refuses.
type treeFS struct {
	root  *node
	spool io.ReaderAt
}

func (t treeFS) lookup(op, name string) (*node, error) {
	n := t.root
	if name == "." {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		child, ok := n.children[part]
		if !ok {
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		n = child
	}
	return n, nil
}

// Open implements fs.FS for regular files.
func (t treeFS) Open(name string) (fs.File, error) {
	n, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	return &treeFile{io.NewSectionReader(t.spool, n.offset, n.size), treeInfo{name, n}}, nil
}

// Stat implements fs.StatFS.
func (t treeFS) Stat(name string) (fs.FileInfo, error) {
	n, err := t.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	return treeInfo{name, n}, nil
}

// ReadLink implements fs.ReadLinkFS.
func (t treeFS) ReadLink(name string) (string, error) {
	n, err := t.lookup("readlink", name)
	if err != nil {
		return "", err
	}
	return n.target, nil
}

// Lstat implements fs.ReadLinkFS.
func (t treeFS) Lstat(name string) (fs.FileInfo, error) { return t.Stat(name) }

// ReadDir implements fs.ReadDirFS; entries are sorted by their bytes.
func (t treeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	entries := make([]fs.DirEntry, 0, len(n.children))
	for name, child := range n.children {
		entries = append(entries, fs.FileInfoToDirEntry(treeInfo{name, child}))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries, nil
}

type treeFile struct {
	*io.SectionReader
	info treeInfo
}

func (f *treeFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *treeFile) Close() error               { return nil }

type treeInfo struct {
	name string
	*node
}

func (i treeInfo) Name() string       { return i.name }
func (i treeInfo) Size() int64        { return i.size }
func (i treeInfo) Mode() fs.FileMode  { return i.mode }
func (i treeInfo) ModTime() time.Time { return i.mtime }
func (i treeInfo) IsDir() bool        { return i.mode.IsDir() }

func (i treeInfo) Sys() any {
	return &erofs.Stat{
		Mode: i.mode, Size: i.size, Rdev: i.rdev, UID: i.uid, GID: i.gid,
		// Times before 1970 are negative numbers, which EROFS stores as they are.
		Mtime: uint64(i.mtime.Unix()), MtimeNs: uint32(i.mtime.Nanosecond()),
		Nlink: i.links(), Xattrs: i.xattrs,
	}
}

// links counts as Linux does for a directory. go-erofs knows no hard links:
// each becomes a file of its own.
func (i treeInfo) links() int {
	if !i.mode.IsDir() {
		return 1
	}
	n := 2
	for _, child := range i.children {
		if child.mode.IsDir() {
			n++
		}
	}
	return n
}
