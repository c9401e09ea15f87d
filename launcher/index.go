package launcher

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// Index is a user's list of VM folders: a folder of small files, each of which is
// named by an entry's ID and holds a VM folder's path. It says which folders there
// are, and nothing of their state. What the path of an entry no longer leads to is
// dropped when it is looked for.
type Index struct{ Dir string }

// DefaultIndex is in the user's folder of state.
// Source: XDG Base Directory Specification 0.8.
func DefaultIndex() (Index, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return Index{}, err
		}
		state = filepath.Join(home, ".local", "state")
	}
	return Index{filepath.Join(state, "kattest", "vms")}, nil
}

// Entry is a VM folder of the index.
type Entry struct {
	ID     string // the first 12 hexadecimal digits of the SHA-256 of Folder
	Folder string // absolute, without symbolic links
}

// Name is the folder's own name.
func (e Entry) Name() string { return filepath.Base(e.Folder) }

// EntryOf returns the entry that a folder has or would have.
func EntryOf(dir string) (Entry, error) {
	folder, err := filepath.Abs(dir)
	if err != nil {
		return Entry{}, err
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		return Entry{}, err
	}
	id := sha256.Sum256([]byte(folder))
	return Entry{ID: hex.EncodeToString(id[:6]), Folder: folder}, nil
}

// Add puts a folder into the index.
func (x Index) Add(dir string) (Entry, error) {
	e, err := EntryOf(dir)
	if err != nil {
		return Entry{}, err
	}
	if err := os.MkdirAll(x.Dir, 0o700); err != nil {
		return Entry{}, err
	}
	return e, wholefile.Write(filepath.Join(x.Dir, e.ID), []byte(e.Folder+"\n"), 0o600)
}

// Drop takes an entry out of the index.
func (x Index) Drop(e Entry) error {
	err := os.Remove(filepath.Join(x.Dir, e.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// maxEntry bounds an entry's file, in bytes: a path of Linux's PATH_MAX.
const maxEntry = 4096 + 1

// List returns the entries, sorted by folder. Those whose folder is gone are
// dropped.
func (x Index) List() ([]Entry, error) {
	files, err := os.ReadDir(x.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, f := range files {
		e, ok := x.read(f)
		if !ok {
			continue
		}
		if _, err := os.Stat(filepath.Join(e.Folder, vm.ConfigFile)); errors.Is(err, fs.ErrNotExist) {
			if err := x.Drop(e); err != nil {
				return nil, err
			}
			continue
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Folder, b.Folder) })
	return all, nil
}

// read passes over what is no entry.
func (x Index) read(f fs.DirEntry) (Entry, bool) {
	if !f.Type().IsRegular() {
		return Entry{}, false
	}
	name := filepath.Join(x.Dir, f.Name())
	if info, err := f.Info(); err != nil || info.Size() > maxEntry {
		return Entry{}, false
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return Entry{}, false
	}
	folder, ok := strings.CutSuffix(string(data), "\n")
	id := sha256.Sum256([]byte(folder))
	if !ok || !filepath.IsAbs(folder) || f.Name() != hex.EncodeToString(id[:6]) {
		return Entry{}, false
	}
	return Entry{ID: f.Name(), Folder: folder}, true
}

// Errors of Find.
var (
	ErrNoSuchVM  = errors.New("no such VM")
	ErrAmbiguous = errors.New("more than one VM is meant")
)

// Find returns the entry that a user means: by a folder's path, by a folder's
// name, or by the beginning of an ID. A folder that is in no index is found by
// its path.
func (x Index) Find(what string) (Entry, error) {
	if _, err := os.Stat(filepath.Join(what, vm.ConfigFile)); err == nil {
		return EntryOf(what)
	}
	all, err := x.List()
	if err != nil {
		return Entry{}, err
	}
	for _, means := range []func(Entry) bool{
		func(e Entry) bool { return e.Name() == what },
		func(e Entry) bool { return what != "" && strings.HasPrefix(e.ID, what) },
	} {
		found := slices.DeleteFunc(slices.Clone(all), func(e Entry) bool { return !means(e) })
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return Entry{}, fmt.Errorf("%s: %w: %s and %s", what, ErrAmbiguous, found[0].Folder, found[1].Folder)
		}
	}
	return Entry{}, fmt.Errorf("%s: %w", what, ErrNoSuchVM)
}
