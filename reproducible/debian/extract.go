package debian

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Extract unpacks packages into a folder, which becomes the root of a system
// with a merged /usr: the packages' files, the links awk and cc that maintainer
// scripts would have made, and the users root and nobody. Nothing is run.
//
// The result does not depend on the order of the packages: of two that hold the
// same file, other than a folder, both are named in an error. Owners are set if
// the caller is root.
func Extract(ctx context.Context, debs []string, root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	dir, err := os.OpenRoot(root) // refuses names and links that lead outside
	if err != nil {
		return err
	}
	defer dir.Close()
	t := &tree{root: dir, from: map[string]string{}, dirs: map[string]attributes{}}
	if err := t.merge(); err != nil {
		return fmt.Errorf("preparing %s: %w", root, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(min(runtime.NumCPU(), 4))
	for _, deb := range debs {
		group.Go(func() error {
			return Walk(ctx, deb, func(hdr *tar.Header, r io.Reader) error { return t.put(deb, hdr, r) })
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := t.finish(); err != nil {
		return fmt.Errorf("finishing %s: %w", root, err)
	}
	return nil
}

// tree is a root being filled by several packages at a time.
type tree struct {
	root *os.Root
	mu   sync.Mutex
	from map[string]string     // path to the package that holds it
	dirs map[string]attributes // folders; set at the end
}

type attributes struct {
	mode     fs.FileMode
	uid, gid int
	time     time.Time
}

func (t *tree) merge() error {
	for _, name := range merged {
		if err := t.root.MkdirAll("usr/"+name, 0o755); err != nil {
			return err
		}
		if err := t.root.Symlink("usr/"+name, name); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) put(deb string, hdr *tar.Header, r io.Reader) error {
	at := attributes{hdr.FileInfo().Mode(), hdr.Uid, hdr.Gid, hdr.ModTime}
	if hdr.Typeflag == tar.TypeDir {
		return t.putDir(hdr.Name, at)
	}
	if err := t.claim(deb, hdr.Name); err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeSymlink:
		if err := t.root.Symlink(hdr.Linkname, hdr.Name); err != nil {
			return err
		}
		return t.own(hdr.Name, at)
	case tar.TypeLink:
		return t.root.Link(hdr.Linkname, hdr.Name)
	default:
		return t.putFile(hdr.Name, at, r)
	}
}

func (t *tree) claim(deb, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other, ok := t.from[name]; ok {
		return fmt.Errorf("%s is in %s too", name, other)
	}
	t.from[name] = deb
	return nil
}

func (t *tree) putDir(name string, at attributes) error {
	if err := t.root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// Many packages share a folder, and may disagree: the latest time, and the
	// narrowest mode, whoever comes first.
	if old, ok := t.dirs[name]; ok {
		at.mode = min(at.mode, old.mode)
		at.uid, at.gid = min(at.uid, old.uid), min(at.gid, old.gid)
		if old.time.After(at.time) {
			at.time = old.time
		}
	}
	t.dirs[name] = at
	return nil
}

func (t *tree) putFile(name string, at attributes, r io.Reader) error {
	f, err := t.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return t.set(name, at)
}

// set gives owner, mode and time, in this order: a change of owner drops setuid.
func (t *tree) set(name string, at attributes) error {
	if err := t.own(name, at); err != nil {
		return err
	}
	if err := t.root.Chmod(name, at.mode); err != nil {
		return err
	}
	return t.root.Chtimes(name, at.time, at.time)
}

func (t *tree) own(name string, at attributes) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return t.root.Lchown(name, at.uid, at.gid)
}

// alternatives are the links that update-alternatives would make, the preferred
// target first.
var alternatives = []struct {
	link    string
	targets []string
}{
	{"usr/bin/awk", []string{"gawk", "mawk"}},
	{"usr/bin/cc", []string{"gcc"}},
}

// accounts are the users that a build needs.
var accounts = map[string]string{
	"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
	"etc/group":  "root:x:0:\nnogroup:x:65534:\n",
}

func (t *tree) finish() error {
	for _, a := range alternatives {
		if err := t.alternative(a.link, a.targets); err != nil {
			return err
		}
	}
	if err := t.root.MkdirAll("etc", 0o755); err != nil {
		return err
	}
	epoch := time.Unix(0, 0)
	for name, text := range accounts {
		if _, err := t.root.Lstat(name); err == nil {
			continue
		}
		if err := t.root.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
		if err := t.set(name, attributes{0o644, 0, 0, epoch}); err != nil {
			return err
		}
	}
	// Folders last: what was put into them changed their times.
	for _, name := range []string{".", "usr", "etc", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin"} {
		if _, ok := t.dirs[name]; !ok {
			t.dirs[name] = attributes{0o755, 0, 0, epoch}
		}
	}
	for name, at := range t.dirs {
		if err := t.set(name, at); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) alternative(link string, targets []string) error {
	if _, err := t.root.Lstat(link); err == nil {
		return nil
	}
	for _, target := range targets {
		if _, err := t.root.Stat("usr/bin/" + target); err == nil {
			return t.root.Symlink(target, link)
		}
	}
	return nil
}
