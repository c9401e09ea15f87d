package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/internal/wholefile"
)

// Cache keeps unpacked layers and whole file systems between conversions, in a
// folder. Nothing in it is believed: a layer is hashed as it is read and
// compared with its DiffID, a file system with its root hash. What is damaged is
// removed and made again. A nil Cache keeps nothing.
//
// Its files, whose names are SHA-256 of a layer unpacked and of a configuration:
//
//	layers/DIFFID.tar     the unpacked layer
//	images/CONFIG.img     EROFS and dm-verity tree, often the same file as a VM's
//	images/CONFIG.json    its root hash, salt and size
type Cache struct{ dir string }

// format is the version of the file systems in a cache. It is counted on
// whenever the same image gives other bytes than before.
const format = "v2"

// unused is how long an entry stays without being used.
const unused = 30 * 24 * time.Hour

// OpenCache makes the folder dir if it is not there, and removes from it what
// was not used for 30 days.
func OpenCache(dir string) (*Cache, error) {
	c := &Cache{filepath.Join(dir, format)}
	for _, folder := range []string{"layers", "images"} {
		name := filepath.Join(c.dir, folder)
		if err := os.MkdirAll(name, 0o700); err != nil {
			return nil, fmt.Errorf("cache of images: %w", err)
		}
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, fmt.Errorf("cache of images: %w", err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || time.Since(info.ModTime()) < unused {
				continue // gone meanwhile, or in use
			}
			if err := os.Remove(filepath.Join(name, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("cache of images: %w", err)
			}
		}
	}
	return c, nil
}

func (c *Cache) layerName(diffID v1.Hash) string {
	return filepath.Join(c.dir, "layers", diffID.Hex+".tar")
}

func (c *Cache) imageName(config v1.Hash, ext string) string {
	return filepath.Join(c.dir, "images", config.Hex+ext)
}

// layer opens an unpacked layer.
func (c *Cache) layer(diffID v1.Hash) (f *os.File, size int64, ok bool) {
	if c == nil {
		return nil, 0, false
	}
	return openEntry(c.layerName(diffID))
}

// openEntry opens a file of the cache and notes that it was used.
func openEntry(name string) (f *os.File, size int64, ok bool) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, false
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		_ = f.Close() // nothing was written
		return nil, 0, false
	}
	now := time.Now()
	_ = os.Chtimes(name, now, now) // at worst it is removed early
	return f, info.Size(), true
}

// keepLayer gives a file without a name one in the cache. That it cannot,
// because the cache is on another file system or is full, is no error: a later
// conversion takes longer.
func (c *Cache) keepLayer(diffID v1.Hash, f *os.File) {
	if c == nil {
		return
	}
	_ = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, c.layerName(diffID), unix.AT_SYMLINK_FOLLOW)
}

func (c *Cache) dropLayer(diffID v1.Hash) { _ = os.Remove(c.layerName(diffID)) }

// image opens a file system, and says what it was when it was kept.
func (c *Cache) image(config v1.Hash) (*os.File, pod.Verity, bool) {
	if c == nil {
		return nil, pod.Verity{}, false
	}
	data, err := os.ReadFile(c.imageName(config, ".json"))
	if err != nil {
		return nil, pod.Verity{}, false
	}
	var v pod.Verity
	f, size, ok := openEntry(c.imageName(config, ".img"))
	if !ok {
		return nil, pod.Verity{}, false
	}
	if json.Unmarshal(data, &v) != nil || v.DataBlocks < 2 || v.DataBlocks > uint64(size)/blockSize {
		_ = f.Close() // nothing was written
		c.dropImage(config)
		return nil, pod.Verity{}, false
	}
	return f, v, true
}

// keepImage names a file system that has been written a second time, in the
// cache, or copies it where the cache is on another file system. As with
// layers, that it cannot is no error.
func (c *Cache) keepImage(config v1.Hash, root *os.File, v pod.Verity) {
	if c == nil {
		return
	}
	err := os.Link(root.Name(), c.imageName(config, ".img"))
	if errors.Is(err, unix.EXDEV) {
		err = wholefile.Fill(c.imageName(config, ".img"), 0o600, func(w io.Writer) error {
			_, err := io.Copy(w, io.NewSectionReader(root, 0, math.MaxInt64))
			return err
		})
	}
	if err != nil {
		return
	}
	record, err := json.Marshal(v)
	if err == nil {
		err = wholefile.Write(c.imageName(config, ".json"), record, 0o600)
	}
	if err != nil {
		c.dropImage(config)
	}
}

func (c *Cache) dropImage(config v1.Hash) {
	_ = os.Remove(c.imageName(config, ".json"))
	_ = os.Remove(c.imageName(config, ".img"))
}
