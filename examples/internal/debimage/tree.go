package debimage

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tree is a file system in memory, by path.
type Tree struct {
	mu      sync.Mutex
	entries map[string]entry
	newest  time.Time // of all files that were put
}

type entry struct {
	hdr  tar.Header
	data []byte
}

func newTree() *Tree { return &Tree{entries: map[string]entry{}} }

// put takes an entry of a package. The result does not depend on the order of
// the packages: a folder may be in several, anything else in one.
func (t *Tree) put(hdr *tar.Header, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	e := entry{tar.Header{
		Typeflag: hdr.Typeflag, Name: hdr.Name, Linkname: hdr.Linkname, Size: int64(len(data)),
		Mode: hdr.Mode & 0o1777, // no setuid: nobody in here is to become root
		Uid:  hdr.Uid, Gid: hdr.Gid, ModTime: hdr.ModTime,
	}, data}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.hdr.ModTime.After(t.newest) {
		t.newest = e.hdr.ModTime
	}
	old, ok := t.entries[hdr.Name]
	if ok && (old.hdr.Typeflag != tar.TypeDir || hdr.Typeflag != tar.TypeDir) {
		return fmt.Errorf("%s is in two packages", hdr.Name)
	}
	if ok {
		e.hdr.Mode = min(e.hdr.Mode, old.hdr.Mode)
		e.hdr.Uid, e.hdr.Gid = min(e.hdr.Uid, old.hdr.Uid), min(e.hdr.Gid, old.hdr.Gid)
		if old.hdr.ModTime.After(e.hdr.ModTime) {
			e.hdr.ModTime = old.hdr.ModTime
		}
	}
	t.entries[hdr.Name] = e
	return nil
}

// Folder adds a folder, with the folders above it.
func (t *Tree) Folder(name string, mode int64, owner int) {
	t.add(entry{hdr: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: owner, Gid: owner}})
}

// File adds a file that belongs to root.
func (t *Tree) File(name string, mode int64, data []byte) {
	t.add(entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data})
}

// Link adds a symbolic link.
func (t *Tree) Link(name, target string) {
	t.add(entry{hdr: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}})
}

// HardLink adds another name for a file of the tree.
func (t *Tree) HardLink(name, target string) {
	t.add(entry{hdr: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o755}})
}

// Remove takes files and folders out, with what is in them.
func (t *Tree) Remove(names ...string) {
	for _, name := range names {
		maps.DeleteFunc(t.entries, func(at string, _ entry) bool { return at == name || strings.HasPrefix(at, name+"/") })
	}
}

// Account is a user and a group of the same name and number.
type Account struct {
	Name string
	ID   int
	Home string
}

// Accounts writes the image's users and groups: root, nobody, and these.
func (t *Tree) Accounts(accounts ...Account) {
	passwd, group := "root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\n"
	for _, a := range accounts {
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:/usr/sbin/nologin\n", a.Name, a.ID, a.ID, a.Home)
		group += fmt.Sprintf("%s:x:%d:\n", a.Name, a.ID)
	}
	t.File("etc/passwd", 0o644, []byte(passwd+"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"))
	t.File("etc/group", 0o644, []byte(group+"nogroup:x:65534:\n"))
}

// add sets an entry of our own, with the folders above it.
func (t *Tree) add(e entry) {
	e.hdr.ModTime = t.newest
	t.entries[e.hdr.Name] = e
	for dir := path.Dir(e.hdr.Name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t.entries[dir]; !ok {
			t.entries[dir] = entry{hdr: tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: t.newest}}
		}
	}
}

// encode returns the tree as a tar file: folders before what is in them, hard
// links after their targets, sorted by name otherwise.
func (t *Tree) encode() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	names := slices.SortedFunc(maps.Keys(t.entries), func(a, b string) int {
		linkA, linkB := t.entries[a].hdr.Typeflag == tar.TypeLink, t.entries[b].hdr.Typeflag == tar.TypeLink
		if linkA != linkB {
			if linkA {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		if name == "." {
			continue
		}
		e := t.entries[name]
		e.hdr.Format = tar.FormatPAX
		if e.hdr.Typeflag == tar.TypeDir {
			e.hdr.Name += "/"
		}
		if err := w.WriteHeader(&e.hdr); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
