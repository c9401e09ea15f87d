package explain

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/explain/internal/lanes"
)

// newFirmware returns a firmware with all that OVMF has, told apart by id.
func newFirmware(t testing.TB, id byte) *measure.Firmware {
	t.Helper()
	state := measure.FirmwareState{
		Digest: measure.Digest{id}, Size: 4 << 20, ResetVector: 0x80b004, HashTable: 0x810c00,
		Sections: []measure.Section{
			{GPA: 0x800000, Size: 0x9000, Type: measure.SectionMemory},
			{GPA: 0x80d000, Size: 0x1000, Type: measure.SectionSecrets},
			{GPA: 0x80e000, Size: 0x1000, Type: measure.SectionCPUID},
			{GPA: 0x810000, Size: 0x1000, Type: measure.SectionKernelHashes},
			{GPA: 0x811000, Size: 0xf000, Type: measure.SectionMemory},
		},
	}
	fw, err := state.Firmware()
	if err != nil {
		t.Fatal(err)
	}
	return fw
}

func milan(vcpus int) measure.Shape {
	return measure.Shape{VMM: measure.QEMU, VCPUs: vcpus, CPU: measure.CPU{Name: "EPYC-Milan", Signature: 0xa00f11}, GuestFeatures: 1}
}

// twoReleases is a space of a release and the one before it, of which nothing is
// the same.
func twoReleases(t testing.TB, vcpus int) Space {
	t.Helper()
	return Space{
		Sources: []Source{
			{Name: "new", Firmware: newFirmware(t, 1), Kernel: measure.Hash{1}, Initrd: measure.Hash{2}, Cmdline: "quiet", Expected: []measure.Shape{milan(1), milan(2), milan(4)}},
			{Name: "old", Firmware: newFirmware(t, 2), Kernel: measure.Hash{3}, Initrd: measure.Hash{4}, Cmdline: "debug", Expected: []measure.Shape{milan(1)}},
		},
		Cmdlines: []string{"quiet debug"},
		CPUs:     KnownCPUs(),
		Features: []uint64{1, 0x21, 0x201},
		VCPUs:    vcpus,
	}
}

// changed is what a test changes of the launch that is expected: new, on Milan
// with two vCPUs.
type changed struct {
	firmware, kernel, initrd int // the source's index, or noInitrd
	off                      bool
	cmdline                  string
	shape                    measure.Shape
}

func (c changed) digest(t testing.TB, s Space) measure.Digest {
	t.Helper()
	var hashes *measure.KernelHashes
	if !c.off {
		h, err := measure.NewKernelHashes(s.Sources[c.kernel].Kernel, s.initrd(c.initrd), c.cmdline)
		if err != nil {
			t.Fatal(err)
		}
		hashes = &h
	}
	d, err := measure.Measure(s.Sources[c.firmware].Firmware, hashes, c.shape)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSearch(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*changed)
		nearest string
		fields  []Field
	}{
		{"as expected", func(*changed) {}, "new", nil},
		{"vCPUs", func(c *changed) { c.shape.VCPUs = 8 }, "new", []Field{FieldVCPUs}},
		{"CPU", func(c *changed) { c.shape.CPU.Signature = 0x800f12 }, "new", []Field{FieldCPU}},
		{"host's CPU", func(c *changed) { c.shape.CPU.Signature = 0xa10f11 }, "new", []Field{FieldCPU}},
		{"features", func(c *changed) { c.shape.GuestFeatures = 0x21 }, "new", []Field{FieldGuestFeatures}},
		{"hashes off", func(c *changed) { c.off = true }, "new", []Field{FieldKernelHashes}},
		{"firmware", func(c *changed) { c.firmware = 1 }, "new", []Field{FieldFirmware}},
		{"kernel", func(c *changed) { c.kernel = 1 }, "new", []Field{FieldKernel}},
		{"initrd", func(c *changed) { c.initrd = 1 }, "new", []Field{FieldInitrd}},
		{"no initrd", func(c *changed) { c.initrd = noInitrd }, "new", []Field{FieldInitrd}},
		{"command line", func(c *changed) { c.cmdline = "quiet debug" }, "new", []Field{FieldCmdline}},
		{"no command line", func(c *changed) { c.cmdline = "" }, "new", []Field{FieldCmdline}},
		{"old AMD host", func(c *changed) { c.shape.VMM = measure.QEMUAMD65 }, "new", []Field{FieldVMM}},
		{"AMD host with DebugSwap", func(c *changed) { c.shape.VMM, c.shape.GuestFeatures = measure.QEMUAMD66, 0x21 }, "new", []Field{FieldVMM}},
		{"EC2", func(c *changed) { c.off, c.shape.VMM = true, measure.EC2v2026 }, "new", []Field{FieldKernelHashes, FieldVMM}},
		{"the old release", func(c *changed) {
			*c = changed{1, 1, 1, false, "debug", milan(1)}
		}, "old", nil},
		{"old firmware and command line, vCPUs", func(c *changed) {
			c.firmware, c.cmdline, c.shape.VCPUs = 1, "debug", 7
		}, "new", []Field{FieldFirmware, FieldCmdline, FieldVCPUs}},
		{"old with the new kernel", func(c *changed) {
			*c = changed{1, 0, 1, false, "debug", milan(1)}
		}, "old", []Field{FieldKernel}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := twoReleases(t, 8)
			c := changed{cmdline: "quiet", shape: milan(2)}
			tt.change(&c)
			a, err := Search(t.Context(), c.digest(t, s), s, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if a.Explanation == nil || a.RuledOut() {
				t.Fatalf("not explained: %+v", a)
			}
			e := *a.Explanation
			var fields []Field
			for _, d := range e.Differences {
				fields = append(fields, d.Field)
				if d.Meaning == "" || d.Change == "" || d.Expected == d.Found {
					t.Errorf("difference that says nothing: %+v", d)
				}
			}
			if diff := cmp.Diff(tt.fields, fields); diff != "" {
				t.Errorf("differences: %s", diff)
			}
			if e.Nearest != tt.nearest {
				t.Errorf("nearest is %s, want %s", e.Nearest, tt.nearest)
			}
			if diff := cmp.Diff(wantLaunch(s, c), e.Launch, cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "CPUs" }, cmp.Ignore())); diff != "" {
				t.Errorf("launch: %s", diff)
			}
			if e.Launch.VMM.MeasuresCPU() != (len(e.Launch.CPUs) > 0) {
				t.Errorf("CPUs %q", e.Launch.CPUs)
			}
		})
	}
}

// TestWithoutKernelHashes is of firmware that takes none, and launches without.
func TestWithoutKernelHashes(t *testing.T) {
	state := newFirmware(t, 3).State()
	state.HashTable, state.Sections = 0, state.Sections[:3]
	generic, err := state.Firmware()
	if err != nil {
		t.Fatal(err)
	}
	s := Space{CPUs: KnownCPUs(), Features: []uint64{1}, VCPUs: 4, Sources: []Source{
		{Name: "generic", Firmware: generic, Kernel: measure.Hash{1}, Expected: []measure.Shape{milan(2)}},
		{Name: "no kernel", Firmware: newFirmware(t, 4), Expected: []measure.Shape{milan(2)}},
	}}
	for _, tt := range []struct {
		name   string
		change changed
		fields []Field
	}{
		{"generic", changed{off: true, shape: milan(2)}, nil},
		{"no kernel", changed{firmware: 1, off: true, shape: milan(2)}, nil},
		{"no kernel", changed{firmware: 1, initrd: noInitrd, shape: milan(2)}, []Field{FieldKernelHashes}},
		{"generic", changed{off: true, shape: measure.Shape{VMM: measure.GCEGenoa, VCPUs: 3, GuestFeatures: 1}}, []Field{FieldVMM, FieldVCPUs}},
	} {
		a, err := Search(t.Context(), tt.change.digest(t, s), s, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if a.Explanation == nil {
			t.Fatalf("%+v: not explained", tt.change)
		}
		var fields []Field
		for _, d := range a.Explanation.Differences {
			fields = append(fields, d.Field)
		}
		if diff := cmp.Diff(tt.fields, fields); diff != "" || a.Explanation.Nearest != tt.name {
			t.Errorf("%+v: %s", *a.Explanation, diff)
		}
	}
}

func wantLaunch(s Space, c changed) Launch {
	l := Launch{
		Firmware: s.Sources[c.firmware].Name, KernelHashes: !c.off,
		VMM: c.shape.VMM, VCPUs: c.shape.VCPUs, GuestFeatures: c.shape.GuestFeatures,
	}
	if !c.off {
		l.Kernel, l.Cmdline = s.Sources[c.kernel].Name, c.cmdline
		if c.initrd != noInitrd {
			l.Initrd = s.Sources[c.initrd].Name
		}
	}
	if c.shape.VMM.MeasuresCPU() {
		l.CPUSignature = c.shape.CPU.Signature
	}
	return l
}

// everything measures each launch of the space by itself: how many there are of
// each digest.
func everything(t *testing.T, s Space) map[measure.Digest]uint64 {
	t.Helper()
	launches := map[measure.Digest]uint64{}
	var cmdlines []string
	for _, src := range s.Sources {
		cmdlines = append(cmdlines, src.Cmdline)
	}
	cmdlines = append(append(cmdlines, s.Cmdlines...), "")
	initrds := []int{noInitrd}
	for i := range s.Sources {
		initrds = append(initrds, i)
	}
	boots := func(f int, vmm measure.Profile, c changed) {
		c.firmware = f
		for _, cpu := range s.CPUs {
			for _, mask := range s.Features {
				for n := range s.VCPUs {
					c.shape = measure.Shape{VMM: vmm, VCPUs: n + 1, CPU: cpu, GuestFeatures: mask}
					launches[c.digest(t, s)]++
				}
			}
		}
	}
	for f := range s.Sources {
		for _, vmm := range snpProfiles() {
			switch vmm { // that cannot launch it: no SVSM, and a page for kernel hashes
			case measure.SVSM, measure.SVSMNoFPU, measure.GCEGenoa, measure.GCEMilan:
				continue
			}
			boots(f, vmm, changed{off: true})
			if !vmm.TakesKernel() {
				continue
			}
			for k := range s.Sources {
				for _, i := range initrds {
					for _, c := range cmdlines {
						boots(f, vmm, changed{kernel: k, initrd: i, cmdline: c})
					}
				}
			}
		}
	}
	return launches
}

// smallSpace is one that everything gets through.
func smallSpace(t *testing.T) Space {
	s := twoReleases(t, 2)
	for i := range s.Sources {
		s.Sources[i].Expected = nil
	}
	s.Cmdlines = nil
	s.CPUs = []measure.CPU{{Name: "EPYC", Signature: 0x800f12}, {Name: "EPYC-v1", Signature: 0x800f12}, {Name: "EPYC-Milan", Signature: 0xa00f11}}
	s.Features = []uint64{1, 0x21}
	return s
}

// TestRuledOut holds the numbers of a space, and what is found in it, against
// every launch of it measured alone.
func TestRuledOut(t *testing.T) {
	s := smallSpace(t)
	all := everything(t, s)
	var launches uint64
	var digests []measure.Digest
	for d, n := range all {
		launches += n
		digests = append(digests, d)
	}
	slices.SortFunc(digests, func(a, b measure.Digest) int { return slices.Compare(a[:], b[:]) })
	want := Size{Launches: launches, Digests: uint64(len(all))}
	for _, path := range lanes.Paths() {
		t.Run(path.String(), func(t *testing.T) {
			a, err := Search(t.Context(), measure.Digest{1}, s, Options{path: path})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Answer{Space: want, Searched: want.Digests}, a); diff != "" {
				t.Error(diff)
			}
			if !a.RuledOut() {
				t.Error("not ruled out")
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 40 {
				d := digests[r.IntN(len(digests))]
				a, err := Search(t.Context(), d, s, Options{path: path})
				if err != nil {
					t.Fatal(err)
				}
				if a.Explanation == nil {
					t.Fatalf("%v was not found", d)
				}
				if a.Explanation.Alike != all[d] {
					t.Errorf("%+v: %d launches are alike, want %d", a.Explanation.Launch, a.Explanation.Alike, all[d])
				}
			}
		})
	}
}

// TestSameAnswer searches on one processor and on all.
func TestSameAnswer(t *testing.T) {
	s := twoReleases(t, 64)
	d := changed{firmware: 1, cmdline: "quiet", shape: milan(63)}.digest(t, s)
	var first *Explanation
	for i := range 6 {
		a, err := Search(t.Context(), d, s, Options{Processors: i % 3})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = a.Explanation
		}
		if diff := cmp.Diff(first, a.Explanation); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestEndedEarly(t *testing.T) {
	s := twoReleases(t, measure.MaxVCPUs)
	s.Features = AllFeatures()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen, total uint64
	a, err := Search(ctx, measure.Digest{}, s, Options{Progress: func(searched, digests uint64) {
		if searched < seen {
			t.Errorf("progress from %d to %d", seen, searched)
		}
		seen, total = searched, digests
		if searched > 100_000 {
			cancel()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if a.RuledOut() || a.Explanation != nil {
		t.Errorf("an answer without a search: %+v", a)
	}
	if total != a.Space.Digests || seen == 0 || a.Searched < seen || a.Searched >= total {
		t.Errorf("progress %d of %d; answer %+v", seen, total, a)
	}
}

// TestDisagree has a search that computes other digests than package measure.
func TestDisagree(t *testing.T) {
	for _, breaks := range []func(*kind){
		func(k *kind) { k.rest[8]++ },
		func(k *kind) { k.bsp = k.ap },
		func(k *kind) { k.ap = k.bsp },
		func(k *kind) { k.near[0].digest[0]++ },
	} {
		p, err := newPlan(twoReleases(t, 8), lanes.Paths()[0])
		if err != nil {
			t.Fatal(err)
		}
		breaks(p.kinds[0])
		s := &search{plan: p}
		if h, err := s.run(t.Context(), 1); !errors.Is(err, errDisagree) || h != nil {
			t.Errorf("hit %v, error %v, want %v", h, err, errDisagree)
		}
	}
}

func TestCheck(t *testing.T) {
	good := twoReleases(t, 4)
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, breaks := range map[string]func(*Space){
		"no source":         func(s *Space) { s.Sources = nil },
		"many sources":      func(s *Space) { s.Sources = slices.Repeat(s.Sources, MaxSources) },
		"no firmware":       func(s *Space) { s.Sources[1].Firmware = nil },
		"command lines":     func(s *Space) { s.Cmdlines = make([]string, MaxCmdlines+1) },
		"NUL":               func(s *Space) { s.Cmdlines = []string{"a\x00"} },
		"no vCPU":           func(s *Space) { s.VCPUs = 0 },
		"vCPUs":             func(s *Space) { s.VCPUs = measure.MaxVCPUs + 1 },
		"fewer vCPUs":       func(s *Space) { s.VCPUs = 3 },
		"features":          func(s *Space) { s.Features = []uint64{0x20} },
		"unknown features":  func(s *Space) { s.Features = []uint64{1 | 1<<40} },
		"expected features": func(s *Space) { s.Sources[0].Expected[0].GuestFeatures = 2 },
		"no CPU":            func(s *Space) { s.CPUs, s.Sources[0].Expected, s.Sources[1].Expected = nil, nil, nil },
		"many CPUs":         func(s *Space) { s.CPUs = make([]measure.CPU, maxCPUs+1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := twoReleases(t, 4)
			breaks(&s)
			a, err := Search(t.Context(), measure.Digest{}, s, Options{})
			if err == nil {
				t.Fatal("searched")
			}
			if diff := cmp.Diff(Answer{}, a); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFeatures(t *testing.T) {
	if n := len(AllFeatures()); n != 1<<15 {
		t.Errorf("%d masks", n)
	}
	if n := len(LikelyFeatures()); n != 1+15+15*14/2 {
		t.Errorf("%d likely masks", n)
	}
	seen := map[uint64]bool{}
	for _, m := range AllFeatures() {
		if seen[m] || m&measure.SNPActive == 0 || m&^measure.KnownFeatures != 0 {
			t.Fatalf("mask %#x", m)
		}
		seen[m] = true
	}
	for bit := uint64(1); bit != 0; bit <<= 1 {
		if (featureNames()[bit] != "") != (measure.KnownFeatures&bit != 0) {
			t.Errorf("feature %#x is named %q", bit, featureNames()[bit])
		}
	}
}
