package igvm

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"runtime"
	"sync"
	"testing"

	"github.com/kraudcloud/kattest/measure"
)

// large is a file of n pages that differ.
func large(n int) []byte {
	b := &builder{version: 1}
	b.platform(snp, 2).policy(snp, 0x30000)
	for i := range n {
		page := make([]byte, measure.PageSize)
		binary.LittleEndian.PutUint64(page, uint64(i))
		b.page(snp, uint64(i)*measure.PageSize, 0, 0, page)
	}
	return b.build()
}

// BenchmarkMeasure is the whole job on a file of 64 MiB; the floor beside it is
// SHA-384 over the same bytes, on all processors, and nothing else.
func BenchmarkMeasure(b *testing.B) {
	file := large(16 << 10)
	b.Run("igvm", func(b *testing.B) {
		b.SetBytes(int64(len(file)))
		for b.Loop() {
			f, err := open(file)
			if err != nil {
				b.Fatal(err)
			}
			i, err := f.Load(QEMU)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := i.Measure(1, measure.SignatureCPU(1)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor", func(b *testing.B) {
		b.SetBytes(int64(len(file)))
		n := runtime.GOMAXPROCS(0)
		for b.Loop() {
			var wg sync.WaitGroup
			for part := range n {
				wg.Go(func() {
					h := sha512.New384()
					h.Write(file[len(file)*part/n : len(file)*(part+1)/n])
					h.Sum(nil)
				})
			}
			wg.Wait()
		}
	})
}

// Whatever the file says, memory stays bounded: here by as many headers as there
// may be, each with a page of its own.
func TestMemoryIsBounded(t *testing.T) {
	b := &builder{version: 1}
	b.platform(snp, 2)
	const pages = (MaxHeaders - 24) / 32
	start := uint32(24 + 24 + 32*pages)
	for i := range uint32(pages) {
		b.add(0x302, uint64(i)*measure.PageSize, uint32(snp), start+i, uint32(0), uint32(0))
	}
	file := append(b.build(), make([]byte, pages+measure.PageSize)...)
	put(0x10, 4, uint64(len(file)))(file)
	reseal(file)

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	// The first page cannot be read: hashing them all takes a second that tells nothing.
	_, err := Open(readerAt{bytes.NewReader(file), bytes.NewReader(nil)}, int64(len(file)))
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Fatal("no error")
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 56<<20 {
		t.Errorf("%d MiB were allocated, all in all", used>>20)
	}
}
