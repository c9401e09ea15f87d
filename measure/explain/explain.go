// Package explain says which launch made a digest that is not the one expected,
// or how large a space of launches was ruled out.
//
// It tries them all: every profile of package measure, kernel hashes on and off,
// with the kernels, initrds and command lines that it is given, CPU signatures,
// masks of guest features, and numbers of vCPUs. A digest is made by one chain, so
// that there is one answer, of which several launches that measure alike may be
// the cause: the one in the fewest flags different from what is expected is told.
//
// The digests are computed eight at a time where the processor can (see
// internal/lanes). That is not on the path of trust: a launch that is found is
// measured again by package measure before it is told, and while a space is ruled
// out samples of it are, so that a search that computes other digests than package
// measure ends in an error. An explanation is advice for people; what a verifier
// accepts does not depend on it.
package explain

import (
	"context"
	"fmt"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/explain/internal/lanes"
)

// Options are how a space is searched. The zero value will do.
type Options struct {
	// Processors is how many are used at most; 0 is all.
	Processors int
	// Progress, if not nil, is told now and then how many digests were searched, of
	// how many. It is called often, by one goroutine at a time, and must be quick.
	Progress func(searched, digests uint64)

	path lanes.Path
}

// Answer is what a search came to.
type Answer struct {
	Explanation *Explanation // nil where no launch of the space makes the digest
	Space       Size
	// Searched is the number of distinct digests that were computed and compared.
	// Without an explanation it is Space.Digests, unless the search was ended early:
	// then nothing is known of the rest.
	Searched uint64
}

// RuledOut reports whether no launch of the whole space makes the digest.
func (a Answer) RuledOut() bool { return a.Explanation == nil && a.Searched == a.Space.Digests }

// Explanation is the launch that makes a digest.
type Explanation struct {
	Launch Launch `json:"launch"`
	// Nearest is the source that the launch differs least from, in Differences. It
	// is a launch as expected where there are none.
	Nearest     string       `json:"nearest"`
	Differences []Difference `json:"differences"`
	// Alike is the number of launches of the space that make the digest.
	Alike uint64 `json:"alike"`
}

// Search looks for the launch that makes the digest. It ends early when ctx is
// done, which the answer shows and is no error.
func Search(ctx context.Context, digest measure.Digest, space Space, opts Options) (Answer, error) {
	a, err := find(ctx, digest, space, opts)
	if err != nil {
		return Answer{}, fmt.Errorf("explaining %v: %w", digest, err)
	}
	return a, nil
}

func find(ctx context.Context, digest measure.Digest, space Space, opts Options) (Answer, error) {
	if err := space.Check(); err != nil {
		return Answer{}, err
	}
	if opts.path == 0 {
		opts.path = lanes.Paths()[0]
	}
	p, err := newPlan(space, opts.path)
	if err != nil {
		return Answer{}, err
	}
	s := &search{plan: p, want: digest}
	if opts.Progress != nil {
		s.progress = func(searched uint64) { opts.Progress(searched, p.size.Digests) }
	}
	h, err := s.run(ctx, processorsToUse(opts.Processors))
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Space: p.size, Searched: s.searched.Load()}
	if h != nil {
		a.Explanation, err = p.explain(*h, digest)
	}
	return a, err
}

// explain chooses among the launches that make the digest the one with the fewest
// differences, and measures it again.
func (p *plan) explain(h hit, digest measure.Digest) (*Explanation, error) {
	var best launch
	e := &Explanation{Alike: uint64(len(h.start.launches) * len(p.cpus()))}
	if h.start.launches[0].vmm.MeasuresCPU() {
		e.Alike = uint64(len(h.start.launches) * max(1, len(p.cpuNames(h.pair.signature))))
	}
	for i, l := range h.start.launches {
		candidate := launch{l.boot, measure.Shape{
			VMM: l.vmm, VCPUs: h.vcpus, GuestFeatures: h.pair.features, CPU: measure.SignatureCPU(h.pair.signature),
		}}
		source, differences := p.nearest(candidate)
		if i == 0 || len(differences) < len(e.Differences) {
			best, e.Nearest, e.Differences = candidate, p.Sources[source].Name, differences
		}
	}
	again, err := measure.Measure(p.Sources[best.boot.firmware].Firmware, best.boot.hashes, best.shape)
	if err != nil {
		return nil, err
	}
	if again != digest {
		return nil, fmt.Errorf("%w: %+v", errDisagree, p.describe(best))
	}
	e.Launch = p.describe(best)
	if e.Differences == nil {
		e.Differences = []Difference{} // an empty list in JSON
	}
	return e, nil
}
