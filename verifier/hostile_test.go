package verifier_test

import (
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/verifier"
)

// attempt is what is judged, and with what.
type attempt struct {
	data   []byte
	policy verifier.Policy
	source verifier.Source
}

// hostile is an attempt that must be refused, with a verdict and by a check.
type hostile struct {
	name string
	attempt
	verdict verifier.Verdict
	code    verifier.Code
	alone   bool // no other check fails
}

// family is damage of one kind, and its undamaged twin, which is accepted.
type family struct {
	name  string
	twin  attempt
	cases []hostile
}

// Bounds of what a hostile input may cost.
const (
	maxHostileTime = 50 * time.Millisecond
	maxMemory      = 64 << 20 // bytes
	maxResult      = 32 << 10 // bytes in JSON, of which a host writes but excerpts
)

// cost is what the judgement of an input took at most.
type cost struct {
	time   time.Duration
	memory uint64 // bytes, allocated
}

func (c *cost) add(other cost) {
	c.time, c.memory = max(c.time, other.time), max(c.memory, other.memory)
}

// Damaged inputs of every kind that is thought of: each is refused for what is
// wrong with it, and costs little.
func TestHostile(t *testing.T) {
	generators := []struct {
		name     string
		families func(*lab) []family
	}{
		{"reports", reportFamilies},
		{"certificates", certificateFamilies},
		{"chains", chainFamilies},
		{"revocation", revocationFamilies},
		{"policies", policyFamilies},
		{"inputs", inputFamilies},
	}
	total, ran, most := 0, 0, cost{}
	for _, g := range generators {
		for _, prefix := range []string{"", asSimulated} {
			if testing.Short() && prefix == asSimulated && g.name != "chains" {
				ran++ // in haste, what is judged alike is judged once
				continue
			}
			t.Run(prefix+g.name, func(t *testing.T) {
				ran++
				l := newLab(t, prefix)
				for _, f := range g.families(l) {
					total += len(f.cases)
					t.Run(f.name, func(t *testing.T) { most.add(f.run(t, l.verifier)) })
				}
			})
		}
	}
	if t.Logf("%d damaged inputs, each in at most %v and %d KiB", total, most.time, most.memory>>10); total < 1000 && ran == 2*len(generators) {
		t.Errorf("%d damaged inputs, want 1000", total)
	}
}

// verifier returns one for which the lab's roots are AMD's.
func (l *lab) verifier(source verifier.Source) *verifier.Verifier {
	v := verifier.New(source)
	for _, p := range verifier.Products() {
		for _, key := range []verifier.SigningKey{verifier.VCEK, verifier.VLEK} {
			if l.prefix == "" {
				ask, _ := l.above(machine{product: p, key: key})
				v.Pin(p, key, ask, l.ark(p))
			}
		}
	}
	return v
}

// run judges each attempt by a Verifier of its own, and again by one that has
// seen the twin, so that nothing which is remembered helps.
func (f family) run(t *testing.T, fresh func(verifier.Source) *verifier.Verifier) (most cost) {
	if len(f.cases) == 0 {
		t.Fatal("a family without cases")
	}
	wise := fresh(f.twin.source)
	if _, err := wise.Judge(t.Context(), "", f.twin.data, f.twin.policy); err != nil {
		t.Fatalf("the twin: %v", err)
	}
	for _, h := range f.cases {
		r, c := h.judge(t, fresh)
		most.add(c)
		h.check(t, r)
		if h.source != nil {
			wise = fresh(h.source)
		}
		again, _ := wise.Judge(t.Context(), "", h.data, h.policy)
		if diff := cmp.Diff(failures(r), failures(again)); diff != "" {
			t.Errorf("%s: judged otherwise by a Verifier that knows the twin (-new +wise):\n%s", h.name, diff)
		}
	}
	return most
}

// judge judges within the bounds. The machine that it runs on may be busy: the
// shortest of a few tries counts.
func (h hostile) judge(t *testing.T, fresh func(verifier.Source) *verifier.Verifier) (r verifier.Result, c cost) {
	c.time = time.Hour
	for range 16 {
		v := fresh(h.source)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		got, err := v.Judge(t.Context(), "", h.data, h.policy)
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		refusal, ok := errors.AsType[*verifier.Refusal](err)
		if !ok {
			t.Errorf("%s: verdict %v, error %v, want a refusal", h.name, got.Verdict, err)
			return got, cost{}
		}
		if diff := cmp.Diff(got, refusal.Result); diff != "" {
			t.Errorf("%s: the error has another result:\n%s", h.name, diff)
		}
		if c.memory = after.TotalAlloc - before.TotalAlloc; c.memory > maxMemory {
			t.Errorf("%s: allocated %d bytes", h.name, c.memory)
		}
		if r, c.time = got, min(c.time, took); c.time <= maxTime {
			return r, c
		}
	}
	t.Errorf("%s: took %v", h.name, c.time)
	return r, c
}

func (h hostile) check(t *testing.T, r verifier.Result) {
	codes := failures(r)
	if r.Verdict != h.verdict || !slices.Contains(codes, h.code) {
		t.Errorf("%s: %v by %v, want %v by %v", h.name, r.Verdict, codes, h.verdict, h.code)
	}
	if h.alone && len(codes) != 1 {
		t.Errorf("%s: %v fail, want %v alone", h.name, codes, h.code)
	}
	for _, c := range r.With(verifier.Fail) {
		if c.Expected == "" && c.Reason == "" {
			t.Errorf("%s: %s fails and does not say why", h.name, c.Code)
		}
	}
	if b, err := json.Marshal(r); err != nil || len(b) > maxResult {
		t.Errorf("%s: a result of %d bytes, error %v", h.name, len(b), err)
	}
}
