package igvm

import (
	"crypto/sha512"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/kraudcloud/kattest/measure"
)

// batch is the number of pages that one goroutine hashes at a time.
const batch = 64

// hash reads the pages that the headers refer to, each once, and hashes them on
// all processors.
func (p *parser) hash() error {
	p.file.contents = make([]measure.Digest, len(p.offsets))
	var next atomic.Int64
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), (len(p.offsets)+batch-1)/batch)
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for errs[w] == nil {
				end := int(next.Add(batch))
				start := end - batch
				if start >= len(p.offsets) {
					return
				}
				errs[w] = p.hashPages(start, min(end, len(p.offsets)))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// hashPages hashes the pages of the indices from start up to end.
func (p *parser) hashPages(start, end int) error {
	var page [measure.PageSize]byte
	for i := start; i < end; i++ {
		if err := readAt(p.r, page[:], int64(p.offsets[i])); err != nil {
			return err
		}
		p.file.contents[i] = sha512.Sum384(page[:])
	}
	return nil
}
