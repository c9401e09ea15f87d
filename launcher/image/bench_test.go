package image

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const benchSize = 64 << 20

// benchImage has files of all sizes, half of it text that packs well.
func benchImage(b *testing.B) v1.Image {
	b.Helper()
	random := rand.NewChaCha8([32]byte{1})
	block := make([]byte, 1<<20)
	var entries []entry
	for i := range benchSize >> 20 {
		for j := range block {
			block[j] = "kattest\n"[j%8]
		}
		if _, err := io.ReadFull(random, block[:len(block)/2]); err != nil {
			b.Fatal(err)
		}
		part := len(block) >> (i % 8)
		for j := 0; j < len(block); j += part {
			entries = append(entries, file(fmt.Sprintf("d%d/f%d", i, j), string(block[j:j+part])))
		}
	}
	return makeImage(b, sampleConfig, entries)
}

// BenchmarkConvert converts an image of 64 MiB; BenchmarkCopy copies its tar,
// which is the limit.
func BenchmarkConvert(b *testing.B) {
	reference := writeLayout(b, benchImage(b))
	b.SetBytes(benchSize)
	for b.Loop() {
		convert(b, reference)
	}
}

func BenchmarkCopy(b *testing.B) {
	layers, err := benchImage(b).Layers()
	if err != nil {
		b.Fatal(err)
	}
	rc, err := layers[0].Uncompressed()
	if err != nil {
		b.Fatal(err)
	}
	data, err := io.ReadAll(rc)
	if err != nil {
		b.Fatal(err)
	}
	name := filepath.Join(b.TempDir(), "copy.tar")
	b.SetBytes(benchSize)
	for b.Loop() {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
}
