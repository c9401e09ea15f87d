package reproducible

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// artefact is one file of the boot stack and how to make it.
type artefact struct {
	name string // in the boot stack
	// source says what it is made from, for the manifest.
	source string
	key    key
	slow   bool // takes minutes
	// make writes the file out. work is an empty folder to work in.
	make func(ctx context.Context, work, out string) error
}

// cache keeps artefacts by their key, in folders below dir:
//
//	artefacts/KEY/NAME    the file
//	artefacts/KEY/sha256  its SHA-256, lower-case hexadecimal
//	artefacts/KEY.lock    held by the build that makes or checks it
//	work/KEY              where it is made; left behind only by a killed build
type cache struct {
	dir string
	log *progress
	// remake has it make what takes seconds though it holds it.
	remake bool
}

// get returns the path of an artefact, which is made if the cache does not hold
// it or holds other bytes than were put there.
func (c cache) get(ctx context.Context, a artefact) (string, error) {
	entry := filepath.Join(c.dir, "artefacts", a.key.String())
	work := filepath.Join(c.dir, "work", a.key.String())
	for _, dir := range []string{filepath.Dir(entry), filepath.Dir(work)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", fmt.Errorf("making the cache: %w", err)
		}
	}
	unlock, err := c.lock(ctx, a, entry+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()

	file := filepath.Join(entry, a.name)
	ok, err := recorded(entry, a.name)
	if err != nil {
		return "", err
	}
	if ok && (a.slow || !c.remake) {
		c.log.say(a.name, "unchanged")
		return file, nil
	}
	start := time.Now()
	if err := c.make(ctx, a, work, entry); err != nil {
		return "", fmt.Errorf("building %s: %w", a.name, err)
	}
	c.log.say(a.name, "built in %v", time.Since(start).Round(100*time.Millisecond))
	return file, nil
}

func (c cache) make(ctx context.Context, a artefact, work, entry string) error {
	for _, dir := range []string{work, entry} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	defer os.RemoveAll(work)
	made := filepath.Join(work, "made")
	scratch := filepath.Join(work, "scratch")
	for _, dir := range []string{made, scratch} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	file := filepath.Join(made, a.name)
	if err := a.make(ctx, scratch, file); err != nil {
		return err
	}
	sum, err := fileSum(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(made, "sha256"), []byte(sum+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(made, entry)
}

// recorded reports whether the entry holds the artefact as it was put there.
func recorded(entry, name string) (bool, error) {
	want, err := os.ReadFile(filepath.Join(entry, "sha256"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sum, err := fileSum(filepath.Join(entry, name))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return sum == strings.TrimSpace(string(want)), err
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
