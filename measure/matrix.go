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
	byChain := map[chain][]int{} // to the shapes, by their indices
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
		c := chainOf(s)
		byChain[c] = append(byChain[c], i)
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
				fw.walk(prefixes[shapes[chains[i][0]].VMM], shapes, chains[i], digests)
			}
		})
	}
	wg.Wait()
	return digests, nil
}

// chain is what shapes on one chain have in common.
type chain struct {
	vmm       Profile
	signature uint32 // 0 where it is not measured
	features  uint64
}

func chainOf(s Shape) chain {
	c := chain{vmm: s.VMM, features: s.GuestFeatures}
	if s.VMM.MeasuresCPU() {
		c.signature = s.CPU.Signature
	}
	return c
}

// walk puts the digests of shapes[i], for the indices i of one chain, into digests.
func (f *Firmware) walk(digest Digest, shapes []Shape, indices []int, digests []Digest) {
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
