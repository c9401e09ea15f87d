package measure

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Matrix returns the launch digest of each shape, as Measure does. Shapes
// that differ in the number of vCPUs alone share one chain, since a digest is
// that of one vCPU less with one more added; chains are computed on all
// processors. An error is the first shape's that has one, and leaves no digest.
func Matrix(fw *Firmware, hashes *KernelHashes, shapes []Shape) ([]Digest, error) {
	prefixes := map[Profile]Digest{}
	byChain := map[Shape][]int{} // to the shapes, by their indices
	for i, s := range shapes {
		if err := s.Check(); err != nil {
			return nil, fmt.Errorf("measuring: shape %d: %w", i, err)
		}
		if _, ok := prefixes[s.VMM]; !ok {
			prefix, err := fw.Prefix(hashes, s.VMM)
			if err != nil {
				return nil, err
			}
			prefixes[s.VMM] = prefix
		}
		byChain[s.chain()] = append(byChain[s.chain()], i)
	}
	chains := make([][]int, 0, len(byChain))
	for _, indices := range byChain {
		chains = append(chains, indices)
	}

	digests := make([]Digest, len(shapes))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(chains)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(chains) {
					return
				}
				fw.chain(prefixes[shapes[chains[i][0]].VMM], shapes, chains[i], digests)
			}
		})
	}
	wg.Wait()
	return digests, nil
}

// chain is the shape without what shapes on one chain may differ in.
func (s Shape) chain() Shape {
	s.VCPUs, s.CPU.Name = 0, ""
	if !s.VMM.MeasuresCPU() {
		s.CPU.Signature = 0
	}
	return s
}

// chain puts the digests of shapes[i], for the indices i of one chain, into digests.
func (f *Firmware) chain(digest Digest, shapes []Shape, indices []int, digests []Digest) {
	slices.SortFunc(indices, func(a, b int) int { return shapes[a].VCPUs - shapes[b].VCPUs })
	bsp, ap := f.VMSAs(shapes[indices[len(indices)-1]])
	digest = digest.Extend(bsp)
	vcpus := 1
	for _, i := range indices {
		for ; vcpus < shapes[i].VCPUs; vcpus++ {
			digest = digest.Extend(ap)
		}
		digests[i] = digest
	}
}
