// Package fetch brings the inputs that a lock file names onto this machine. It
// looks in a content-addressed cache, then in folders that the user names, then
// at the machine's own mirrors. Size and SHA-256 of every file are checked each
// time that it is handed out, from wherever it came.
//
// It does not check signatures: the lock file's hashes stand for them.
package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/kraudcloud/kattest/reproducible/lock"
)

// parallel is how many files are brought at a time.
const parallel = 4

// Fetcher brings inputs. Several, in several processes, may share a cache.
type Fetcher struct {
	// Cache is a folder; an input stands in it as sha256/HASH. It is made if
	// it is absent.
	Cache string
	// Folders are searched for what the cache does not hold, by the file's
	// name, by HASH and by sha256/HASH. One may be an archive of package inputs.
	Folders []string
	// Offline leaves the mirrors alone.
	Offline bool
	// Log takes progress: a bar where it is a terminal, lines otherwise. Nil
	// is silence.
	Log io.Writer

	mirrors  mirrors
	archives archives
}

// Get returns the path of an input's file in the cache. The file is not to be
// changed. The error is an *UnavailableError if the input was found nowhere.
func (f *Fetcher) Get(ctx context.Context, in lock.Input) (string, error) {
	files, err := f.GetAll(ctx, []lock.Input{in})
	if err != nil {
		return "", err
	}
	return files[0], nil
}

// GetAll returns the paths of several inputs' files, in the same order. The
// error is an *UnavailableError, naming all of them, if some were found nowhere.
func (f *Fetcher) GetAll(ctx context.Context, inputs []lock.Input) ([]string, error) {
	if err := os.MkdirAll(f.dir(), 0o755); err != nil {
		return nil, fmt.Errorf("making the cache: %w", err)
	}
	files := make([]string, len(inputs))
	var wanted []int
	for i, in := range inputs {
		files[i] = f.path(in)
		ok, err := f.cached(in)
		if err != nil {
			return nil, err
		}
		if !ok {
			wanted = append(wanted, i)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if len(wanted) == 0 {
		return files, nil
	}
	missing := make([]lock.Input, len(wanted))
	for n, i := range wanted {
		missing[n] = inputs[i]
	}
	if err := f.bring(ctx, missing); err != nil {
		return nil, err
	}
	return files, nil
}

// bring fills the cache with inputs that it does not hold.
func (f *Fetcher) bring(ctx context.Context, inputs []lock.Input) error {
	show := newProgress(f.Log, inputs)
	defer show.close()
	todo := make(chan lock.Input)
	var unavailable UnavailableError
	var others []error
	var mu sync.Mutex
	var workers sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range min(parallel, len(inputs)) {
		workers.Go(func() {
			for in := range todo {
				err := f.bringOne(ctx, in, show)
				if err == nil {
					show.done()
					continue
				}
				mu.Lock()
				if m, ok := errors.AsType[*missingError](err); ok {
					unavailable.Missing = append(unavailable.Missing, m.Missing)
				} else {
					others = append(others, err)
				}
				// Where this much is missing, more names help nobody.
				if len(others) > 0 || len(unavailable.Missing) == maxMissing {
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	for _, in := range inputs {
		select {
		case todo <- in:
		case <-ctx.Done():
		}
	}
	close(todo)
	workers.Wait()
	if len(unavailable.Missing) > 0 {
		return unavailable.sorted()
	}
	if len(others) > 0 {
		return others[0]
	}
	return ctx.Err()
}

// bringOne tries folders and mirrors in turn.
func (f *Fetcher) bringOne(ctx context.Context, in lock.Input, show progress) error {
	miss := Missing{Input: in}
	for _, dir := range f.Folders {
		tried, err := f.fromFolder(in, dir, show)
		if err == nil {
			return nil
		}
		if tried == nil {
			return err
		}
		miss.Tried = append(miss.Tried, *tried)
	}
	if f.Offline {
		miss.Tried = append(miss.Tried, Attempt{"mirrors", errors.New("not asked: offline")})
		return &missingError{miss}
	}
	urls, err := f.mirrors.urls(ctx, in)
	if err != nil {
		miss.Tried = append(miss.Tried, Attempt{"mirrors", err})
	}
	for _, url := range urls {
		err := f.fromMirror(ctx, in, url, show)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, ok := errors.AsType[*os.PathError](err); ok {
			return fmt.Errorf("fetching %v: %w", in, err)
		}
		miss.Tried = append(miss.Tried, Attempt{url, err})
	}
	return &missingError{miss}
}

func (f *Fetcher) fromFolder(in lock.Input, dir string, show progress) (*Attempt, error) {
	tried := &Attempt{dir, errors.New("not there")}
	for _, name := range []string{in.File(), in.SHA256, filepath.Join("sha256", in.SHA256)} {
		file, err := f.archives.file(dir, name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f.store(in, show.reader(file))
			file.Close()
		}
		if err == nil {
			return nil, nil
		}
		tried = &Attempt{filepath.Join(dir, name), err}
	}
	return tried, tried.Err
}

func (f *Fetcher) dir() string { return filepath.Join(f.Cache, "sha256") }

func (f *Fetcher) path(in lock.Input) string { return filepath.Join(f.dir(), in.SHA256) }

// cached reports whether the cache holds the input. A file that is not what its
// name says is removed.
func (f *Fetcher) cached(in lock.Input) (bool, error) {
	file, err := os.Open(f.path(in))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	err = verify(in, io.Discard, file)
	if _, wrong := errors.AsType[*wrongError](err); wrong {
		if f.Log != nil {
			fmt.Fprintf(f.Log, "fetch: cache: %v: %v; removed\n", in, err)
		}
		return false, os.Remove(f.path(in))
	}
	return err == nil, err
}

// store checks a stream and puts it into the cache under its hash, whole or not
// at all.
func (f *Fetcher) store(in lock.Input, r io.Reader) error {
	tmp, err := os.CreateTemp(f.dir(), "incoming-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = verify(in, tmp, r)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), f.path(in))
}

// wrongError says that bytes are not the ones that the lock file names.
type wrongError struct{ what string }

func (e *wrongError) Error() string { return e.what }

// verify copies r to w and compares size and SHA-256 with the lock file's. It
// reads no more than one byte beyond the expected size.
func verify(in lock.Input, w io.Writer, r io.Reader) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, in.Size+1))
	if err != nil {
		return err
	}
	if n > in.Size {
		return &wrongError{fmt.Sprintf("more than the %d bytes that the lock file says", in.Size)}
	}
	if n < in.Size {
		return &wrongError{fmt.Sprintf("%d bytes, the lock file says %d", n, in.Size)}
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != in.SHA256 {
		return &wrongError{fmt.Sprintf("SHA-256 %s, the lock file says %s", sum, in.SHA256)}
	}
	return nil
}
