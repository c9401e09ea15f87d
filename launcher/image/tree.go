package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kraudcloud/kattest/launcher/image/erofs"
)

// Bounds of a merged file system. Source of the first three: Linux 6.12,
// include/uapi/linux/limits.h (NAME_MAX, PATH_MAX, XATTR_SIZE_MAX).
const (
	maxName       = 255
	maxPath       = 4095
	maxXattrValue = 1<<16 - 1
	maxXattrs     = 1 << 17 // bytes of all of one file; EROFS has room for twice that
	maxEntries    = 2 << 20
	maxSymlinks   = 40 // Linux 6.12, include/linux/namei.h, MAXSYMLINKS
)

// node is a directory entry, and the layer that made it.
type node struct {
	*erofs.Inode
	layer    int
	path     int              // length of its path in bytes
	children map[string]*node // of a directory
}

// tree is a file system that layers are applied to, the lowest first.
type tree struct {
	root    *node
	layer   int // the one being applied
	entries int
}

func newDir(layer int) *node {
	return &node{
		Inode:    &erofs.Inode{Mode: fs.ModeDir | 0o755, Mtime: time.Unix(0, 0)},
		layer:    layer,
		children: map[string]*node{},
	}
}

func newTree() *tree { return &tree{root: newDir(0)} }

// split normalises the name of a tar entry into its parts; none for the root.
// A name that leaves the root is refused, not clipped.
func split(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, fmt.Errorf("name of %d bytes, more than %d", len(name), maxPath)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			return nil, fmt.Errorf("%q: name with a part \"..\"", name)
		case len(part) > maxName:
			return nil, fmt.Errorf("%q: part of %d bytes, more than %d", name, len(part), maxName)
		case strings.ContainsRune(part, 0):
			return nil, fmt.Errorf("%q: name with a NUL", name)
		default:
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// errNotExist and errNotDir end a walk.
var (
	errNotExist = errors.New("no such entry")
	errNotDir   = errors.New("not a directory")
)

// dir walks to the directory that parts name, through symbolic links as a
// process in a chroot would. Missing directories are made if create is set.
func (t *tree) dir(parts []string, create bool) (*node, error) {
	links := 0
	at := []*node{t.root}
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		here := at[len(at)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		next, ok := here.children[part]
		switch {
		case !ok && !create:
			return nil, errNotExist
		case !ok:
			if err := t.add(here, part, newDir(t.layer)); err != nil {
				return nil, err
			}
			at = append(at, here.children[part])
		case next.Mode.IsDir():
			at = append(at, next)
		case next.Mode.Type() == fs.ModeSymlink:
			if links++; links > maxSymlinks {
				return nil, errors.New("too many symbolic links on the way")
			}
			if strings.HasPrefix(next.Target, "/") {
				at = at[:1]
			}
			parts = append(strings.Split(next.Target, "/"), parts...)
		default:
			return nil, fmt.Errorf("%q on the way: %w", part, errNotDir)
		}
	}
	return at[len(at)-1], nil
}

func (t *tree) add(dir *node, name string, n *node) error {
	if n.path = dir.path + 1 + len(name); n.path > maxPath {
		return fmt.Errorf("path of %d bytes, more than %d", n.path, maxPath)
	}
	if _, ok := dir.children[name]; !ok {
		if t.entries++; t.entries > maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
	}
	dir.children[name] = n
	return nil
}

// put sets the entry that parts name. A directory over a directory keeps what
// is in it; anything else replaces what was there.
func (t *tree) put(parts []string, ino *erofs.Inode) error {
	if len(parts) == 0 {
		if !ino.Mode.IsDir() {
			return errors.New("the root is a directory")
		}
		return nil // its metadata is fixed
	}
	dir, err := t.dir(parts[:len(parts)-1], true)
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	n := &node{Inode: ino, layer: t.layer}
	if ino.Mode.IsDir() {
		n.children = map[string]*node{}
		if old, ok := dir.children[name]; ok && old.Mode.IsDir() {
			n.children = old.children
		}
	}
	return t.add(dir, name, n)
}

// link finds the file that a hard link names.
func (t *tree) link(name string) (*erofs.Inode, error) {
	parts, err := split(name)
	if err != nil || len(parts) == 0 {
		return nil, fmt.Errorf("hard link to %q: %w", name, errors.Join(err, errNotExist))
	}
	dir, err := t.dir(parts[:len(parts)-1], false)
	if err != nil {
		return nil, fmt.Errorf("hard link to %q: %w", name, err)
	}
	n, ok := dir.children[parts[len(parts)-1]]
	switch {
	case !ok:
		return nil, fmt.Errorf("hard link to %q: %w", name, errNotExist)
	case n.Mode.IsDir():
		return nil, fmt.Errorf("hard link to %q: a directory", name)
	}
	return n.Inode, nil
}

// Whiteouts: OCI image-spec 1.1, layer.md, "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutAUFS   = ".wh..wh." // AUFS' own files, which docker ignores
)

// whiteout applies the entry that parts name if it is a whiteout. It hides what
// lower layers have put there, not what this one has.
func (t *tree) whiteout(parts []string) (done bool, err error) {
	if len(parts) == 0 || !strings.HasPrefix(parts[len(parts)-1], whiteoutPrefix) {
		return false, nil
	}
	base := parts[len(parts)-1]
	dir, err := t.dir(parts[:len(parts)-1], false)
	if errors.Is(err, errNotExist) || errors.Is(err, errNotDir) {
		return true, nil
	}
	if err != nil {
		return true, err
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	switch {
	case base == whiteoutOpaque:
		t.clear(dir)
	case strings.HasPrefix(base, whiteoutAUFS):
	case name == "" || name == "." || name == "..":
		return true, errors.New("a whiteout of nothing")
	default:
		if n, ok := dir.children[name]; ok && t.hide(n) {
			delete(dir.children, name)
			t.entries--
		}
	}
	return true, nil
}

// hide clears n of what lower layers put there and says whether n itself goes.
func (t *tree) hide(n *node) bool {
	t.clear(n)
	return n.layer < t.layer && len(n.children) == 0
}

func (t *tree) clear(dir *node) {
	before := len(dir.children)
	maps.DeleteFunc(dir.children, func(_ string, n *node) bool { return t.hide(n) })
	t.entries -= before - len(dir.children)
}

// seal gives directories their entries, sorted.
func (n *node) seal() {
	n.Entries = make([]erofs.Entry, 0, len(n.children))
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		child := n.children[name]
		if child.Mode.IsDir() {
			child.seal()
		}
		n.Entries = append(n.Entries, erofs.Entry{Name: name, Inode: child.Inode})
	}
}

// xattrs returns the extended attributes of a tar entry that Linux and EROFS
// know. Overlayfs' own are left out: below the guest's overlay they would change
// what the tree means.
func xattrs(h *tar.Header) (map[string]string, error) {
	const pax = "SCHILY.xattr."
	var out map[string]string
	total := 0
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, pax)
		if !ok || !keepXattr(name) {
			continue
		}
		if len(name) > maxName || len(value) > maxXattrValue {
			return nil, fmt.Errorf("extended attribute %.64q: name of %d bytes, value of %d, more than %d and %d", name, len(name), len(value), maxName, maxXattrValue)
		}
		total += len(name) + len(value) + 8
		if out == nil {
			out = map[string]string{}
		}
		out[name] = value
	}
	if total > maxXattrs {
		return nil, fmt.Errorf("extended attributes of %d bytes, more than %d", total, maxXattrs)
	}
	return out, nil
}

func keepXattr(name string) bool {
	if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
		return false
	}
	_, _, ok := erofs.XattrPrefix(name)
	return ok
}
