package main

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

// tree is a file system in memory, by path.
type tree struct {
	mu      sync.Mutex
	entries map[string]entry
	newest  time.Time // of all files that were put
}

type entry struct {
	hdr  tar.Header
	data []byte
}

func newTree() *tree { return &tree{entries: map[string]entry{}} }

// put takes an entry of a package. The result does not depend on the order of
// the packages: a folder may be in several, anything else in one.
func (t *tree) put(hdr *tar.Header, r io.Reader) error {
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

func (t *tree) folder(name string, mode int64, owner int) {
	t.add(entry{hdr: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: owner, Gid: owner}})
}

func (t *tree) file(name string, mode int64, data []byte) {
	t.add(entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data})
}

func (t *tree) link(name, target string) {
	t.add(entry{hdr: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}})
}

// add sets an entry of our own, with the folders above it.
func (t *tree) add(e entry) {
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
func (t *tree) encode() ([]byte, error) {
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
