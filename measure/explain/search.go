package explain

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/explain/internal/lanes"
)

// errDisagree says that what was found, or passed over, is not what package
// measure computes: no answer can be trusted then.
var errDisagree = errors.New("the search and package measure do not agree on a digest: this is a bug, or the processor is broken")

// pair is what the lanes differ in.
type pair struct {
	signature uint32
	features  uint64
}

// octet is up to eight pairs, and what each one's vCPUs add.
type octet struct {
	kind    *kind
	pairs   []pair // of which what follows has a lane each
	bsp, ap vmsas
}

// vmsas are the pages of eight vCPUs, and their digests.
type vmsas struct {
	pages    *lanes.Pages
	contents lanes.Digests
}

func (k *kind) newOctet() *octet {
	return &octet{kind: k, pairs: make([]pair, 0, lanes.Width), bsp: vmsas{pages: k.bsp.Clone()}, ap: vmsas{pages: k.ap.Clone()}}
}

// hash computes what the pairs' vCPUs add.
func (o *octet) hash() {
	for _, v := range []*vmsas{&o.bsp, &o.ap} {
		for lane, p := range o.pairs {
			if o.kind.vmm.MeasuresCPU() {
				v.pages.PutUint64(lane, offsetRDX, uint64(p.signature))
			}
			v.pages.PutUint64(lane, offsetSEVFeatures, p.features)
		}
		v.contents = v.pages.Hash()
	}
}

// job is a part of the space: some starts of a kind, with some masks.
type job struct {
	kind   *kind
	starts []*start
	masks  []uint64
	next   atomic.Int64 // octet
}

// likelyMasks is the number of masks that are searched first: those that are
// expected, and about as many as LikelyFeatures.
const likelyMasks = 128

// jobs are the whole space, the likely launches first: what differs from a source
// in one flag at most, then what differs in several.
func (p *plan) jobs() []*job {
	const chunk = 64 // starts for each time that the VMSAs are computed
	var jobs []*job
	add := func(k *kind, starts []*start, masks []uint64) {
		for len(starts) > 0 {
			n := min(chunk, len(starts))
			jobs = append(jobs, &job{kind: k, starts: starts[:n], masks: masks})
			starts = starts[n:]
		}
	}
	likely := min(likelyMasks, len(p.masks))
	for _, masks := range [][]uint64{p.masks[:likely], p.masks[likely:]} {
		if len(masks) == 0 {
			continue
		}
		for _, k := range p.kinds {
			add(k, k.near, masks)
		}
		for _, k := range p.kinds {
			add(k, k.far, masks)
		}
	}
	return jobs
}

// load takes the i-th eight pairs of the job, and reports false where none are
// left. A mask's signatures stand together.
func (o *octet) load(j *job, i int) bool {
	o.pairs = o.pairs[:0]
	cpus := j.kind.cpus
	for n := i * lanes.Width; n < min(len(j.masks)*len(cpus), (i+1)*lanes.Width); n++ {
		o.pairs = append(o.pairs, pair{cpus[n%len(cpus)], j.masks[n/len(cpus)]})
	}
	if len(o.pairs) == 0 {
		return false
	}
	o.hash()
	return true
}

// hit is a start and a shape that make the digest.
type hit struct {
	start *start
	pair  pair
	vcpus int
}

// search is the state that its workers share.
type search struct {
	plan     *plan
	want     measure.Digest
	searched atomic.Uint64
	progress func(searched uint64)

	mu  sync.Mutex // guards what follows, and calls of progress
	hit *hit
	err error
}

// run searches the plan on that many processors. No hit and no error mean that
// the whole was searched, or that ctx is done.
func (s *search) run(ctx context.Context, workers int) (*hit, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	jobs := s.plan.jobs()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			if h, err := s.work(ctx, jobs); h != nil || err != nil {
				s.mu.Lock()
				if s.hit == nil {
					s.hit = h
				}
				s.err = errors.Join(s.err, err)
				s.mu.Unlock()
				cancel()
			}
		})
	}
	wg.Wait()
	return s.hit, s.err
}

func (s *search) work(ctx context.Context, jobs []*job) (*hit, error) {
	for _, j := range jobs {
		o := j.kind.newOctet()
		for {
			i := int(j.next.Add(1)) - 1
			if !o.load(j, i) {
				break
			}
			if i%sampleEvery == 0 {
				if err := s.plan.sample(j, o, i); err != nil {
					return nil, err
				}
			}
			for _, st := range j.starts {
				if ended(ctx) {
					return nil, nil
				}
				if vcpus, lane := s.chain(st.digest, o); vcpus > 0 {
					return &hit{st, o.pairs[lane], vcpus}, nil
				}
			}
			s.report()
		}
	}
	return nil, nil
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// report tells the progress, unless another worker does.
func (s *search) report() {
	if s.progress != nil && s.mu.TryLock() {
		s.progress(s.searched.Load())
		s.mu.Unlock()
	}
}

// chain adds vCPUs to eight chains at once, and returns the number of them and
// the lane that has the digest, or 0.
func (s *search) chain(from measure.Digest, o *octet) (vcpus, lane int) {
	var c lanes.Chains
	digests := lanes.Spread((*[lanes.DigestSize]byte)(&from))
	c.SetDigests(&digests)
	c.SetTails(&o.bsp.contents, &o.kind.rest)
	begin := binary.BigEndian.Uint64(s.want[:])
	valid := uint8(1<<len(o.pairs) - 1)
	for n := 1; n <= s.plan.VCPUs; n++ {
		c.Extend(s.plan.path)
		for found := c.Begins(begin) & valid; found != 0; found &= found - 1 {
			i := bits.TrailingZeros8(found)
			if c.Digest(i) == s.want {
				s.searched.Add(uint64(n * len(o.pairs)))
				return n, i
			}
		}
		if n == 1 {
			c.SetTails(&o.ap.contents, &o.kind.rest)
		}
	}
	s.searched.Add(uint64(s.plan.VCPUs * len(o.pairs)))
	return 0, 0
}

// sampleEvery octets one lane is computed by package measure too: a search that
// rules a space out has passed over every digest of it.
const sampleEvery = 512

// sample compares one lane of an octet, and its chain of two vCPUs.
func (p *plan) sample(j *job, o *octet, i int) error {
	lane := i / sampleEvery % len(o.pairs)
	st := j.starts[i/sampleEvery%len(j.starts)]
	l := st.launches[len(st.launches)-1]
	shape := measure.Shape{
		VMM: l.vmm, VCPUs: min(2, p.VCPUs), GuestFeatures: o.pairs[lane].features,
		CPU: measure.SignatureCPU(o.pairs[lane].signature),
	}
	want, err := measure.Measure(p.Sources[l.boot.firmware].Firmware, l.boot.hashes, shape)
	if err != nil {
		return err
	}
	probe := search{plan: p, want: want}
	if n, got := probe.chain(st.digest, o); n != shape.VCPUs || o.pairs[got] != o.pairs[lane] {
		return fmt.Errorf("%w: %v, %d vCPUs, signature %#x, features %#x", errDisagree, l.vmm, shape.VCPUs, o.pairs[lane].signature, shape.GuestFeatures)
	}
	return nil
}

// processorsToUse are as many as Go uses, or fewer where they are asked for.
func processorsToUse(asked int) int {
	all := runtime.GOMAXPROCS(0)
	if asked > 0 {
		return min(asked, all)
	}
	return all
}
