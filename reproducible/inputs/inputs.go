// Package inputs is the archive of all that a build reads: the lock file, every
// input that it names, and the Go modules of the agent. With it a build needs no
// mirror, today or when the mirrors have dropped what the lock file names. The
// format is documented in docs/spec/inputs.md.
//
// It checks the archive's form. It does not check that the inputs are the ones
// that a lock file names: package fetch does that with every byte that it takes
// out, so that an archive may come from anyone.
package inputs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/internal/lazyre"
)

// Names in an archive.
const (
	LockFile = "lock.json"
	hashes   = "sha256/"
	modules  = "go/"
)

// blockSize is tar's.
const blockSize = 512

// maxEntries bounds what is read of an archive's list.
const maxEntries = 100_000

// File is a file that goes into an archive.
type File struct {
	Name string // in the archive
	Path string // on this machine
}

// Input returns the name of the file with that SHA-256, in hexadecimal.
func Input(sha256 string) string { return hashes + sha256 }

// Module returns the name of a file of a module proxy's folder.
func Module(name string) string { return modules + name }

// Write writes an archive of the files, which is the same whatever their order,
// owners, modes and times are.
func Write(w io.Writer, files []File) error {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return compareNames(a.Name, b.Name) })
	archive := tar.NewWriter(w)
	for i, f := range files {
		if err := checkName(f.Name); err != nil {
			return err
		}
		if i > 0 && f.Name == files[i-1].Name {
			return fmt.Errorf("%q stands twice", f.Name)
		}
		if err := writeOne(archive, f); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return archive.Close()
}

// compareNames has the lock file first, so that a reader of the stream knows
// what follows.
func compareNames(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == LockFile:
		return -1
	case b == LockFile:
		return 1
	default:
		return strings.Compare(a, b)
	}
}

func writeOne(archive *tar.Writer, f File) error {
	file, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: info.Size(), Mode: 0o644}); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}

var hashRE = lazyre.New(`^[0-9a-f]{64}$`)

// checkName accepts the names that Write gives, and no other.
func checkName(name string) error {
	hash, isInput := strings.CutPrefix(name, hashes)
	module, isModule := strings.CutPrefix(name, modules)
	switch {
	case name == LockFile:
	case isInput && hashRE().MatchString(hash):
	case isModule && module != "" && path.Clean(module) == module && filepath.IsLocal(module):
	default:
		return fmt.Errorf("%.120q is no name of an archive of inputs", name)
	}
	return nil
}

// Archive is an archive on disk, of which files are read where they stand.
type Archive struct {
	file    *os.File
	entries map[string]entry
}

type entry struct{ offset, size int64 }

// Open reads the archive's list. An error names the entry and the byte at which it
// begins.
func Open(name string) (*Archive, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &Archive{file: file, entries: map[string]entry{}}
	if err := a.list(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: archive of inputs: %w", name, err), file.Close())
	}
	return a, nil
}

func (a *Archive) list() error {
	info, err := a.file.Stat()
	if err != nil {
		return err
	}
	r := tar.NewReader(a.file)
	for at := int64(0); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("byte %d: %w", at, err)
		}
		offset, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if err := checkName(header.Name); err != nil {
			return fmt.Errorf("byte %d: %w", at, err)
		}
		_, twice := a.entries[header.Name]
		switch {
		case header.Typeflag != tar.TypeReg:
			return fmt.Errorf("byte %d: %s is not a regular file", at, header.Name)
		case twice:
			return fmt.Errorf("byte %d: %s stands twice", at, header.Name)
		case len(a.entries) == 0 && header.Name != LockFile:
			return fmt.Errorf("byte %d: it begins with %s, want %s", at, header.Name, LockFile)
		case len(a.entries) == maxEntries:
			return fmt.Errorf("byte %d: more than %d files", at, maxEntries)
		case offset+header.Size > info.Size():
			return fmt.Errorf("byte %d: %s ends behind the archive: it was cut off", at, header.Name)
		}
		a.entries[header.Name] = entry{offset, header.Size}
		at = (offset + header.Size + blockSize - 1) / blockSize * blockSize
	}
	if len(a.entries) == 0 {
		return errors.New("it is empty")
	}
	return nil
}

// Close closes the archive's file.
func (a *Archive) Close() error { return a.file.Close() }

// Open returns a file's content; the error is os.ErrNotExist where it is not there.
func (a *Archive) Open(name string) (io.Reader, error) {
	e, ok := a.entries[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, os.ErrNotExist)
	}
	return io.NewSectionReader(a.file, e.offset, e.size), nil
}

// ExtractModules writes the modules' files below dir, in the layout of a module
// proxy, and returns how many there were.
func (a *Archive) ExtractModules(dir string) (int, error) {
	n := 0
	for name, e := range a.entries {
		module, ok := strings.CutPrefix(name, modules)
		if !ok {
			continue
		}
		to := filepath.Join(dir, filepath.FromSlash(module))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return 0, err
		}
		if err := copyTo(to, io.NewSectionReader(a.file, e.offset, e.size)); err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		n++
	}
	return n, nil
}

func copyTo(name string, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
