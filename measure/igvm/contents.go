package igvm

import (
	"crypto/sha512"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kraudcloud/kattest/measure"
)

// batch is the number of pages that one goroutine hashes at a time.
const batch = 64

// hash reads the pages that the headers refer to, each once, in the file's order,
// and hashes them on all processors.
func (p *parser) hash() error {
	pages := slices.Clone(p.offsets)
	slices.Sort(pages)
	pages = slices.Compact(pages)
	p.file.contents = make([]measure.Digest, len(pages))
	var next atomic.Int64
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), (len(pages)+batch-1)/batch)
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for errs[w] == nil {
				end := int(next.Add(batch))
				start := end - batch
				if start >= len(pages) {
					return
				}
				end = min(end, len(pages))
				errs[w] = p.hashPages(pages[start:end], p.file.contents[start:end])
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	for i := range p.file.directives {
		if d := &p.file.directives[i]; kind(d.kind) == pageData && d.index != none {
			at, _ := slices.BinarySearch(pages, p.offsets[d.index])
			d.index = int32(at)
		}
	}
	return nil
}

// hashPages hashes the pages at some offsets.
func (p *parser) hashPages(offsets []uint32, contents []measure.Digest) error {
	var page [measure.PageSize]byte
	for i, offset := range offsets {
		if err := readAt(p.r, page[:], int64(offset)); err != nil {
			return err
		}
		contents[i] = sha512.Sum384(page[:])
	}
	return nil
}
