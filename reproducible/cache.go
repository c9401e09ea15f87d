package reproducible

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/measure/stack"
)

// artefact is one file of the boot stack and how to make it.
type artefact struct {
	name string // in the boot stack
	// source says what it is made from, for the manifest.
	source string
	key    key
	slow   bool // takes minutes
	// also are further files of the boot stack, which make writes beside out.
	also []string
	// make writes the file out. work is an empty folder to work in.
	make func(ctx context.Context, work, out string) ([]stack.Stage, error)
}

// files are all that make writes.
func (a artefact) files() []string { return append([]string{a.name}, a.also...) }

// cache keeps artefacts by their key, in folders below dir:
//
//	artefacts/KEY/NAME    the file
//	artefacts/KEY/record  the SHA-256 of each file, and its stages
//	artefacts/KEY.lock    held by the build that makes or checks it
//	work/KEY              where it is made; left behind only by a killed build
type cache struct {
	dir string
	log *progress
	// remake has it make what takes seconds though it holds it.
	remake bool
}

// record is what the cache knows of an artefact.
type record struct {
	SHA256 map[string]string `json:"sha256"` // by file; lower-case hexadecimal
	Stages []stack.Stage     `json:"stages"`
}

const recordFile = "record"

// get returns the folder of an artefact, which is made if the cache does not hold
// it or holds other bytes than were put there.
func (c cache) get(ctx context.Context, a artefact) (dir string, stages []stack.Stage, err error) {
	entry := filepath.Join(c.dir, "artefacts", a.key.String())
	work := filepath.Join(c.dir, "work", a.key.String())
	for _, dir := range []string{filepath.Dir(entry), filepath.Dir(work)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", nil, fmt.Errorf("making the cache: %w", err)
		}
	}
	unlock, err := c.lock(ctx, a, entry+".lock")
	if err != nil {
		return "", nil, err
	}
	defer unlock()

	known, ok, err := recorded(entry, a)
	if err != nil {
		return "", nil, err
	}
	if ok && (a.slow || !c.remake) {
		c.log.say(a.name, "unchanged")
		return entry, known.Stages, nil
	}
	start := time.Now()
	made, err := c.make(ctx, a, work, entry)
	if err != nil {
		return "", nil, fmt.Errorf("building %s: %w", a.name, err)
	}
	c.log.say(a.name, "built in %v", time.Since(start).Round(100*time.Millisecond))
	return entry, made.Stages, nil
}

func (c cache) make(ctx context.Context, a artefact, work, entry string) (record, error) {
	for _, dir := range []string{work, entry} {
		if err := os.RemoveAll(dir); err != nil {
			return record{}, err
		}
	}
	defer os.RemoveAll(work)
	made := filepath.Join(work, "made")
	scratch := filepath.Join(work, "scratch")
	for _, dir := range []string{made, scratch} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return record{}, err
		}
	}
	r := record{SHA256: map[string]string{}}
	var err error
	if r.Stages, err = a.make(ctx, scratch, filepath.Join(made, a.name)); err != nil {
		return record{}, err
	}
	for _, name := range a.files() {
		if r.SHA256[name], err = fileSum(filepath.Join(made, name)); err != nil {
			return record{}, err
		}
	}
	data, err := json.Marshal(r)
	if err != nil {
		return record{}, err
	}
	if err := os.WriteFile(filepath.Join(made, recordFile), append(data, '\n'), 0o644); err != nil {
		return record{}, err
	}
	return r, os.Rename(made, entry)
}

// recorded reports whether the entry holds the artefact as it was put there.
func recorded(entry string, a artefact) (record, bool, error) {
	data, err := os.ReadFile(filepath.Join(entry, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return record{}, false, nil
	}
	if err != nil {
		return record{}, false, err
	}
	var r record
	if whole := strictjson.Decode(data, &r) == nil; !whole {
		return record{}, false, nil
	}
	for _, name := range a.files() {
		sum, err := fileSum(filepath.Join(entry, name))
		if errors.Is(err, os.ErrNotExist) {
			return record{}, false, nil
		}
		if err != nil || sum != r.SHA256[name] {
			return record{}, false, err
		}
	}
	return r, true, nil
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// lock waits until no other build holds the file. The lock ends with the process.
func (c cache) lock(ctx context.Context, a artefact, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for waited := false; ; waited = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
		if !waited {
			c.log.say(a.name, "another build makes it: waiting")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
