package image

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kraudcloud/kattest/guest/pod"
)

// cached converts a layout with a cache, and says which steps there were.
func cached(t *testing.T, layout string, c *Cache) (pod.Verity, []byte, []string) {
	t.Helper()
	img, err := Open(t.Context(), layout)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Create(filepath.Join(t.TempDir(), "root.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var steps []string
	v, err := img.Convert(t.Context(), root, Options{Cache: c, Progress: func(step string, _, _ int64) {
		if !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(root.Name())
	if err != nil {
		t.Fatal(err)
	}
	return v, data, steps
}

func openCache(t *testing.T) *Cache {
	t.Helper()
	c, err := OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// removeBlobs leaves a layout with manifest and configuration alone.
func removeBlobs(t *testing.T, layout string, img v1.Image, keep ...int) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(keep, i) {
			continue
		}
		if err := os.Remove(filepath.Join(layout, "blobs/sha256", digest.Hex)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnchangedImageIsNotConverted(t *testing.T) {
	c := openCache(t)
	img := sample(t)
	layout := writeLayout(t, img)
	v1, data1, _ := cached(t, layout, nil)
	v2, data2, _ := cached(t, layout, c)
	removeBlobs(t, layout, img)
	v3, data3, steps := cached(t, layout, c)
	if v1 != v2 || v2 != v3 || !slices.Equal(data1, data2) || !slices.Equal(data2, data3) {
		t.Error("the bytes depend on the cache")
	}
	if !slices.Equal(steps, []string{"copying the file system"}) {
		t.Errorf("steps %q", steps)
	}
}

func TestUnchangedLayersAreNotUnpacked(t *testing.T) {
	c := openCache(t)
	lower := []entry{dir("d"), file("d/a", strings.Repeat("a", 100000)), hardlink("d/b", "d/a")}
	cached(t, writeLayout(t, makeImage(t, sampleConfig, lower, []entry{file("top", "1")})), c)
	img := makeImage(t, sampleConfig, lower, []entry{file("top", "2"), file("d/.wh.a", "")})
	layout := writeLayout(t, img)
	_, want, _ := cached(t, layout, nil)
	removeBlobs(t, layout, img, 1)
	_, got, _ := cached(t, layout, c)
	if !slices.Equal(got, want) {
		t.Error("the bytes depend on the cache")
	}
}

// Whatever happens to the files of a cache, the image is the same.
func TestDamagedCache(t *testing.T) {
	img := sample(t)
	layout := writeLayout(t, img)
	want, data, _ := cached(t, layout, nil)
	flip := func(b []byte) []byte { b[len(b)/3] ^= 1; return b }
	for name, damage := range map[string]func([]byte) []byte{
		"bit":       flip,
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"empty":     func([]byte) []byte { return nil },
		"grown":     func(b []byte) []byte { return append(append(b, make([]byte, 8192)...), b...) },
		"other":     func([]byte) []byte { return []byte(strings.Repeat("x", 1<<20)) },
		"record":    func([]byte) []byte { return []byte(`{"dataBlocks":18446744073709551615}`) },
	} {
		for _, pattern := range []string{"layers/*", "images/*.img", "images/*.json", "*/*"} {
			t.Run(name+" "+pattern, func(t *testing.T) {
				c := openCache(t)
				cached(t, layout, c)
				files, err := filepath.Glob(filepath.Join(c.dir, pattern))
				if err != nil || len(files) == 0 {
					t.Fatalf("%d files, %v", len(files), err)
				}
				for _, f := range files {
					b, err := os.ReadFile(f)
					if err != nil {
						t.Fatal(err)
					}
					overwrite(t, f, damage(b))
				}
				if strings.HasPrefix(pattern, "layers") {
					c.dropImage(configOf(t, layout)) // so that the layers are asked for
				}
				for range 2 { // the second finds what the first has mended
					if v, got, _ := cached(t, layout, c); v != want || !slices.Equal(got, data) {
						t.Fatalf("root hash %v, want %v", v.RootHash, want.RootHash)
					}
				}
			})
		}
	}
}

func configOf(t testing.TB, layout string) v1.Hash {
	t.Helper()
	img, err := Open(t.Context(), layout)
	if err != nil {
		t.Fatal(err)
	}
	return img.configDigest
}

func TestUnusedIsRemoved(t *testing.T) {
	c := openCache(t)
	layout := writeLayout(t, sample(t))
	cached(t, layout, c)
	files, err := filepath.Glob(filepath.Join(c.dir, "*/*"))
	if err != nil || len(files) != 4 { // two layers, an image, a record
		t.Fatalf("%q, %v", files, err)
	}
	long := time.Now().Add(-unused - time.Hour)
	for _, f := range files[1:] {
		if err := os.Chtimes(f, long, long); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenCache(filepath.Dir(c.dir)); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.dir, "*/*")); !slices.Equal(left, files[:1]) {
		t.Errorf("left are %q, want %q", left, files[:1])
	}
}

// A conversion that is stopped leaves nothing in the cache that a later one takes.
func TestStoppedConversionIsNotCached(t *testing.T) {
	c := openCache(t)
	layout := writeLayout(t, sample(t))
	img, err := Open(t.Context(), layout)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Create(filepath.Join(t.TempDir(), "root.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := img.Convert(ctx, root, Options{Cache: c}); err == nil {
		t.Fatal("it was not stopped")
	}
	if files, _ := filepath.Glob(filepath.Join(c.dir, "*/*")); len(files) != 0 {
		t.Errorf("left are %q", files)
	}
}
