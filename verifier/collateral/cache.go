package collateral

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/verifier"
)

// Cache keeps what another Source answers in a folder, one file for each answer.
// Several processes may use one folder at once. What is damaged is asked for
// again. It grows by one file of about 1.5 KB for each chip and TCB.
type Cache struct {
	// Dir is the folder. It is made with mode 0700 where it is missing.
	Dir string
	// Next is asked for what is not there; nil where there is nothing to ask.
	Next verifier.Source
	// Now is the time, time.Now if nil.
	Now func() time.Time
	// Warn is told that an answer could not be kept; nil is nobody.
	Warn func(error)
}

// fresh is for how long an answer that may change is kept without asking.
const fresh = 24 * time.Hour

// VCEK returns a VCEK's certificate, which never changes.
func (c *Cache) VCEK(ctx context.Context, p verifier.Product, hwid []byte, tcb verifier.TCB) ([]byte, error) {
	return c.get(entry{
		name: vcekPath(p, hwid, tcb), limit: maxCertificate,
		good: func(data []byte) error { return checkVCEK(data, p, hwid, tcb) },
		last: func([]byte) bool { return true },
		ask:  func(next verifier.Source) ([]byte, error) { return next.VCEK(ctx, p, hwid, tcb) },
	})
}

// Chain returns ASK, or ASVK, and ARK.
func (c *Cache) Chain(ctx context.Context, p verifier.Product, key verifier.SigningKey) ([]byte, error) {
	return c.get(entry{
		name: path(p, key) + "/cert_chain", limit: maxChain,
		good: func(data []byte) error { _, err := verifier.ParseChain(data); return err },
		last: func([]byte) bool { return false },
		ask:  func(next verifier.Source) ([]byte, error) { return next.Chain(ctx, p, key) },
	})
}

// CRL returns the ARK's revocation list. One that is out of date is returned only
// if no other can be had; its date is for the verifier to judge.
func (c *Cache) CRL(ctx context.Context, p verifier.Product, key verifier.SigningKey) ([]byte, error) {
	return c.get(entry{
		name: path(p, key) + "/crl", limit: maxCRL,
		good: func(data []byte) error { _, err := verifier.ParseCRL(data); return err },
		last: func([]byte) bool { return false },
		stale: func(data []byte) bool {
			list, err := verifier.ParseCRL(data)
			return err != nil || c.now().After(list.NextUpdate)
		},
		ask: func(next verifier.Source) ([]byte, error) { return next.CRL(ctx, p, key) },
	})
}

// entry is one answer of the cache.
type entry struct {
	name  string // the service's path: what it is called
	limit int64
	good  func([]byte) error // of the kind that was asked for
	last  func([]byte) bool  // does not change
	stale func([]byte) bool  // is past its date; may be nil
	ask   func(verifier.Source) ([]byte, error)
}

func (c *Cache) get(e entry) ([]byte, error) {
	kept, age, err := c.read(e)
	if err == nil && (e.last(kept) || age < fresh && (e.stale == nil || !e.stale(kept))) {
		return kept, nil
	}
	if c.Next == nil {
		if err != nil {
			return nil, fmt.Errorf("%s: not in the cache: %w", e.name, verifier.ErrNotFound)
		}
		return kept, nil
	}
	data, askErr := e.ask(c.Next)
	if askErr == nil {
		askErr = e.good(data)
	}
	if askErr != nil {
		if err == nil { // an older answer is better than none
			return kept, nil
		}
		return nil, askErr
	}
	if err := c.write(e, data); err != nil && c.Warn != nil {
		c.Warn(fmt.Errorf("cache: %w", err))
	}
	return data, nil
}

func (c *Cache) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// file is the entry's, by the SHA-256 of its name.
func (c *Cache) file(e entry) string {
	sum := sha256.Sum256([]byte(e.name))
	return filepath.Join(c.Dir, "v1", hex.EncodeToString(sum[:]))
}

// read returns an entry and its age. One that is damaged is removed. A file is
// its data behind the SHA-256 of it, 32 bytes.
func (c *Cache) read(e entry) ([]byte, time.Duration, error) {
	name := c.file(e)
	info, err := os.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() || info.Size() < sha256.Size || info.Size() > e.limit+sha256.Size {
		return nil, 0, errors.Join(errors.New("not an entry"), os.Remove(name))
	}
	all, err := os.ReadFile(name)
	if err != nil {
		return nil, 0, err
	}
	if len(all) < sha256.Size {
		return nil, 0, errors.Join(errors.New("cut off"), os.Remove(name))
	}
	sum, data := all[:sha256.Size], all[sha256.Size:]
	if want := sha256.Sum256(data); !bytes.Equal(sum, want[:]) || e.good(data) != nil {
		return nil, 0, errors.Join(errors.New("damaged"), os.Remove(name))
	}
	return data, c.now().Sub(info.ModTime()), nil
}

// write keeps an entry, whole or not at all.
func (c *Cache) write(e entry, data []byte) error {
	name := c.file(e)
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	err := wholefile.Write(name, append(sum[:], data...), 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another process cleared the folder
	}
	return err
}
