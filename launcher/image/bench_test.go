package image

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

const benchSize = 256 << 20

// wordsOf are random words in random order, of which gzip makes a third: what
// programs and their data come to.
func wordsOf(b testing.TB) io.Reader {
	b.Helper()
	random := rand.New(rand.NewChaCha8([32]byte{2}))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 2+random.IntN(10))
		for j := range words[i] {
			words[i][j] = byte(random.Uint32())
		}
	}
	r, w := io.Pipe()
	b.Cleanup(func() { r.Close() })
	go func() {
		out := bufio.NewWriterSize(w, 1<<20)
		for err := error(nil); err == nil; {
			_, err = out.Write(words[random.IntN(len(words))])
		}
	}()
	return r
}

// benchLayer has files of all sizes from 4 KiB to 1 MiB.
func benchLayer(b testing.TB, content io.Reader, size int) []byte {
	b.Helper()
	block := make([]byte, 1<<20)
	var entries []entry
	for i := range size >> 20 {
		if _, err := io.ReadFull(content, block); err != nil {
			b.Fatal(err)
		}
		part := len(block) >> (i % 9)
		for j := 0; j < len(block); j += part {
			entries = append(entries, file(fmt.Sprintf("d%d/f%d", i, j), string(block[j:j+part])))
		}
	}
	return tarOf(b, entries...)
}

// plainLayout makes a layout whose one layer is not packed, and returns the
// layer's file too: what a peer is given.
func plainLayout(b testing.TB, data []byte) (reference, blob string) {
	b.Helper()
	return layoutOf(b, static.NewLayer(data, types.OCIUncompressedLayer))
}

// packedLayout is plainLayout with the layer in gzip, as registries serve them.
func packedLayout(b testing.TB, data []byte) (reference, blob string) {
	b.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		b.Fatal(err)
	}
	return layoutOf(b, l)
}

func layoutOf(b testing.TB, l v1.Layer) (reference, blob string) {
	b.Helper()
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(b.TempDir(), "layout")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		b.Fatal(err)
	}
	if err := path.AppendImage(setPlatform(b, img, "linux", "amd64")); err != nil {
		b.Fatal(err)
	}
	digest, err := l.Digest()
	if err != nil {
		b.Fatal(err)
	}
	return dir, filepath.Join(dir, "blobs/sha256", digest.Hex)
}

// BenchmarkConversion converts a layer of 256 MiB to a file system with its
// hash tree: by this package, and by mkfs.erofs and veritysetup. Beside the time it
// reports the processors' seconds, which a busy machine changes less.
func BenchmarkConversion(b *testing.B) {
	p := getPeers(b)
	reference, blob := plainLayout(b, benchLayer(b, rand.NewChaCha8([32]byte{1}), benchSize))
	packedReference, packed := packedLayout(b, benchLayer(b, wordsOf(b), benchSize))
	cache, err := OpenCache(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	convertTo(b, b.TempDir(), reference, cache)
	config := configOf(b, reference)
	dir := b.TempDir() // where each overwrites what was before: the same memory is used again
	peersDo := func(from ...string) func(b *testing.B) {
		return func(b *testing.B) {
			convertByPeers(b, p, from, filepath.Join(dir, "root.img"), filepath.Join(dir, "tree"))
		}
	}
	oursDo := func(reference string, cache *Cache) func(b *testing.B) {
		return func(b *testing.B) { convertTo(b, dir, reference, cache) }
	}
	for _, way := range []struct {
		name string
		do   func(b *testing.B)
	}{
		{"plain/ours", oursDo(reference, nil)},
		{"plain/mkfs.erofs+veritysetup", peersDo("cat", blob)},
		{"gzip/ours", oursDo(packedReference, nil)},
		{"gzip/mkfs.erofs+veritysetup", peersDo("gzip", "-dc", packed)},
		{"cached image/ours", oursDo(reference, cache)},
		{"cached layer/ours", func(b *testing.B) {
			cache.dropImage(config)
			convertTo(b, dir, reference, cache)
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.SetBytes(benchSize)
			before := processorTime(b)
			for b.Loop() {
				way.do(b)
			}
			b.ReportMetric((processorTime(b)-before).Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

// processorTime is what this process and its children have taken.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if err := unix.Getrusage(who, &r); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return sum
}

// convertByPeers pipes a tar file to mkfs.erofs, as it comes to us as a stream.
func convertByPeers(b testing.TB, p peers, from []string, root, tree string) {
	b.Helper()
	cat := exec.Command(from[0], from[1:]...)
	mkfs := p.command("bin/mkfs.erofs", "--tar=f", "-b4096", root)
	var said bytes.Buffer
	mkfs.Stderr = &said
	var err error
	if mkfs.Stdin, err = cat.StdoutPipe(); err != nil {
		b.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		b.Fatal(err)
	}
	if err := mkfs.Run(); err != nil {
		b.Fatalf("mkfs.erofs: %v: %s", err, said.String())
	}
	if err := cat.Wait(); err != nil {
		b.Fatal(err)
	}
	if out, err := p.run(b, "sbin/veritysetup", "format", "--no-superblock", "--hash=sha256", "--salt="+strings.Repeat("00", 32), root, tree); err != nil {
		b.Fatalf("veritysetup: %v: %s", err, out)
	}
}

func convertTo(b testing.TB, dir, reference string, cache *Cache) {
	b.Helper()
	img, err := Open(b.Context(), reference)
	if err != nil {
		b.Fatal(err)
	}
	root, err := os.Create(filepath.Join(dir, "root.img"))
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	if _, err := img.Convert(context.Background(), root, Options{Cache: cache}); err != nil {
		b.Fatal(err)
	}
}

// convertOf names, for a process of this test's own binary, what it converts.
const convertOf = "KATTEST_TEST_CONVERT"

// The memory of a conversion does not grow with the image: four times the bytes
// in as many files, in processes of their own, and at most an eighth more.
func TestMemory(t *testing.T) {
	if reference := os.Getenv(convertOf); reference != "" {
		convertTo(t, t.TempDir(), reference, nil)
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Print(string(status))
		return
	}
	var peaks []int64
	for _, size := range []int{32 << 10, 128 << 10} {
		var entries []entry
		content := strings.Repeat("0123456789abcdef", size/16)
		for i := range 1000 {
			entries = append(entries, file(fmt.Sprintf("f%d", i), content))
		}
		reference, _ := plainLayout(t, tarOf(t, entries...))
		cmd := exec.Command(os.Args[0], "-test.run=^TestMemory$")
		cmd.Env = append(os.Environ(), convertOf+"="+reference)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var peak int64 // the kernel's count of the child would begin with ours
		_, after, _ := strings.Cut(string(out), "VmHWM:")
		if _, err := fmt.Sscan(after, &peak); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		t.Logf("%d MiB in 1000 files: peak RSS of %d KiB", 1000*size>>20, peak)
		peaks = append(peaks, peak)
	}
	if peaks[1] > peaks[0]+peaks[0]/8 {
		t.Errorf("peak RSS of %d KiB, and %d with four times the bytes", peaks[0], peaks[1])
	}
}
