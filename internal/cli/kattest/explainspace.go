package kattest

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/explain"
	"github.com/kraudcloud/kattest/measure/release"
)

const explanationMediaType = "application/vnd.kattest.explanation.v1+json"

// explanation is the answer of kattest explain; docs/explain.md has its JSON.
type explanation struct {
	MediaType   string         `json:"mediaType"`
	Measurement measure.Digest `json:"measurement"`
	// Explanation is null where no launch was found.
	Explanation *explain.Explanation `json:"explanation"`
	RuledOut    bool                 `json:"ruledOut"` // the whole space was searched
	Space       explain.Size         `json:"space"`
	Searched    uint64               `json:"searched"` // distinct digests
	Seconds     float64              `json:"seconds"`
}

// usualSpace is what is searched beside what the user names.
func usualSpace() explain.Space {
	space := explain.Space{CPUs: explain.KnownCPUs(), Features: explain.LikelyFeatures(), VCPUs: measure.MaxVCPUs}
	// A machine without it (no Linux, no x86) has no signature that would matter.
	if cpu, err := hostCPU("/proc/cpuinfo"); err == nil {
		cpu.Name = "host (this machine)"
		space.CPUs = append(space.CPUs, cpu)
	}
	return space
}

func stackSource(dir string, expected []measure.Shape) (explain.Source, error) {
	in, err := readStack(dir, measure.QEMU)
	if err != nil {
		return explain.Source{}, err
	}
	return explain.Source{
		Name: "stack " + dir, Firmware: in.firmware, Kernel: in.hashes.Kernel, Initrd: in.hashes.Initrd, Cmdline: in.stack.Cmdline, Expected: expected,
	}, nil
}

func releaseSource(file string, r release.Release) (explain.Source, error) {
	fw, hashes, err := r.Launch()
	if err != nil {
		return explain.Source{}, err
	}
	src := explain.Source{
		Name: "release " + file, Firmware: fw, Kernel: hashes.Kernel, Initrd: hashes.Initrd, Cmdline: r.Cmdline,
	}
	for _, e := range r.Table {
		src.Expected = append(src.Expected, e.Shape())
	}
	return src, nil
}

func searchLaunch(ctx context.Context, digest measure.Digest, space explain.Space, p *searchProgress) (explanation, error) {
	begin := time.Now()
	a, err := explain.Search(ctx, digest, space, explain.Options{Progress: p.show})
	p.clear()
	if err != nil {
		return explanation{}, err
	}
	return explanation{
		MediaType: explanationMediaType, Measurement: digest, Explanation: a.Explanation, RuledOut: a.RuledOut(),
		Space: a.Space, Searched: a.Searched, Seconds: time.Since(begin).Round(time.Millisecond).Seconds(),
	}, nil
}

// searchProgress shows one line that is written over, on a terminal alone.
type searchProgress struct {
	w           io.Writer // nil without a terminal
	begin, last time.Time
}

func newSearchProgress(w io.Writer) *searchProgress {
	p := &searchProgress{begin: time.Now()}
	if cli.IsTerminal(w) {
		p.w = w
	}
	return p
}

func (p *searchProgress) show(searched, digests uint64) {
	now := time.Now()
	if p.w == nil || now.Sub(p.begin) < time.Second/2 || now.Sub(p.last) < time.Second/5 {
		return
	}
	p.last = now
	rate := float64(searched) / now.Sub(p.begin).Seconds()
	left := time.Duration(float64(digests-searched) / rate * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(p.w, "\r\x1b[Kkattest: %d of %d digests, %.1f million/s, at most %v more", searched, digests, rate/1e6, left)
}

func (p *searchProgress) clear() {
	if p.w != nil && !p.last.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
