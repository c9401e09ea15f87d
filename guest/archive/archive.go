// Package archive turns files into tar archives and back, by the rules of docker's
// "cp". Paths are those of the calling process: one whose root is the container's
// reaches nothing else.
//
// What Unpack writes stays below the folder it is given, whatever the archive and
// whoever changes that folder meanwhile; no device node is made. How much an archive
// holds is not bounded: what bounds the process and its file systems does that.
package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Stat tells of one file, as docker's PathStat does.
type Stat struct {
	Name       string      `json:"name"`
	Size       int64       `json:"size"` // bytes
	Mode       fs.FileMode `json:"mode"`
	Mtime      time.Time   `json:"mtime"`
	LinkTarget string      `json:"linkTarget"` // of a symbolic link: the absolute path it leads to
}

// A RefusedError is a demand that no file system failed at: what was asked for is
// against the rules.
type RefusedError struct{ Reason string }

// Error returns the reason.
func (e *RefusedError) Error() string { return e.Reason }

// Lookup tells of a path. Symbolic links in it are followed, but for a last one that
// neither "/" nor "/." comes after.
func Lookup(path string) (Stat, error) {
	resolved, name, err := resolve(path)
	if err != nil {
		return Stat{}, err
	}
	info, err := os.Lstat(resolved)
	if err != nil {
		return Stat{}, err
	}
	s := Stat{Name: name, Size: info.Size(), Mode: info.Mode(), Mtime: info.ModTime()}
	if info.Mode()&fs.ModeSymlink != 0 {
		if s.LinkTarget, err = target(resolved); err != nil {
			return Stat{}, err
		}
	}
	return s, nil
}

// resolve returns a path without links before its last element, and the name under
// which an archive holds it.
func resolve(path string) (resolved, name string, err error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return "", "", &RefusedError{"path: empty, or holds a NUL"}
	}
	whole := filepath.Join("/", path)
	name = filepath.Base(whole)
	dot := strings.HasSuffix(path, "/.") || path == "."
	if dot {
		name = "."
	}
	if dot || strings.HasSuffix(path, "/") {
		resolved, err = filepath.EvalSymlinks(whole)
		return resolved, name, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(whole))
	return filepath.Join(dir, filepath.Base(whole)), name, err
}

// target is where a link leads; one that leads nowhere is followed once.
func target(link string) (string, error) {
	whole, err := filepath.EvalSymlinks(link)
	if !errors.Is(err, fs.ErrNotExist) {
		return whole, err
	}
	to, err := os.Readlink(link)
	if err != nil {
		return "", err
	}
	if filepath.IsAbs(to) {
		return filepath.Clean(to), nil
	}
	return filepath.Join(filepath.Dir(link), to), nil
}
