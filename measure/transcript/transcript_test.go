package transcript

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/measure"
)

// launch is what a transcript is made of, to be changed by a test.
type launch struct {
	image           []byte
	kernel, cmdline string
	noHashes        bool
	shape           measure.Shape
	fromState       bool
}

func newLaunch() launch {
	return launch{
		image: clitest.Firmware(), kernel: "kernel", cmdline: "quiet",
		shape: measure.Shape{VMM: measure.QEMU, VCPUs: 2, CPU: measure.SignatureCPU(0x800f12), GuestFeatures: measure.SNPActive},
	}
}

func (l launch) transcript(t testing.TB) Transcript {
	t.Helper()
	fw, err := measure.ParseFirmware(l.image)
	if err != nil {
		t.Fatal(err)
	}
	if l.fromState {
		if fw, err = fw.State().Firmware(); err != nil {
			t.Fatal(err)
		}
	}
	hashes, err := measure.HashKernel(strings.NewReader(l.kernel), nil, l.cmdline)
	if err != nil {
		t.Fatal(err)
	}
	given := &hashes
	if l.noHashes {
		given = nil
	}
	tr, err := New(fw, given, l.shape)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := measure.Measure(fw, given, l.shape)
	if err != nil || tr.Measurement != digest {
		t.Fatalf("the transcript ends with %v, the digest is %v, %v", tr.Measurement, digest, err)
	}
	return tr
}

func TestRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*launch){
		"plain":      func(*launch) {},
		"no hashes":  func(l *launch) { l.noHashes = true },
		"from state": func(l *launch) { l.fromState = true },
		"one vCPU":   func(l *launch) { l.shape.VCPUs = 1 },
	} {
		l := newLaunch()
		change(&l)
		want := l.transcript(t)
		b, err := want.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := newLaunch().transcript(t)
	for _, tt := range []struct {
		name string
		edit func(*Transcript)
		err  string
	}{
		{"another version", func(t *Transcript) { t.MediaType = "x" }, "mediaType"},
		{"no VMM", func(t *Transcript) { t.VMM = 0 }, "unknown VMM"},
		{"no vCPU", func(t *Transcript) { t.VCPUs = 0 }, "vcpus: 0"},
		{"no steps", func(t *Transcript) { t.Steps = nil }, "steps: 0"},
		{"a changed page", func(t *Transcript) { t.Steps[3].Contents[0]++ }, "steps[3].state"},
		{"a changed state", func(t *Transcript) { t.Steps[3].State[0]++ }, "steps[3].state"},
		{"a changed type", func(t *Transcript) { t.Steps[3].Type = measure.PageVMSA }, "steps[3].state"},
		{"a step left out", func(t *Transcript) { t.Steps = append(t.Steps[:3], t.Steps[4:]...) }, "steps[3].state"},
		{"another end", func(t *Transcript) { t.Measurement[0]++ }, "measurement"},
		{"a step of nothing", func(t *Transcript) { t.Steps[3].Pages = 0 }, "steps[3].pages: 0"},
		{"a step of everything", func(t *Transcript) { t.Steps[3].Pages = 1 << 40 }, "steps[3].pages"},
		{"half a page", func(t *Transcript) { t.Steps[3].GPA++ }, "steps[3].gpa"},
		{"no name", func(t *Transcript) { t.Steps[3].What = "" }, "steps[3].what"},
		{"a contents that is not measured", func(t *Transcript) { t.Steps[3].Type = measure.PageZero }, "steps[3].contents"},
		{"firmware alone is taken on trust", func(t *Transcript) { t.Steps[3].Contents = measure.Digest{} }, "steps[3].state"},
	} {
		tr := good
		tr.Steps = append([]measure.Step(nil), good.Steps...)
		tt.edit(&tr)
		b, err := json.Marshal(tr)
		if err != nil {
			b = bytes.Replace(mustEncode(t, good), []byte(`"qemu@6.11"`), []byte(`""`), 1)
		}
		got, err := Parse(b)
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.err)
		}
		if diff := cmp.Diff(Transcript{}, got); diff != "" {
			t.Errorf("%s: a value beside the error: %s", tt.name, diff)
		}
		if _, err := tr.Encode(); err == nil {
			t.Errorf("%s: it was written", tt.name)
		}
	}
	if _, err := Parse(make([]byte, MaxSize+1)); err == nil {
		t.Error("too large a transcript was read")
	}
}

func mustEncode(t testing.TB, tr Transcript) []byte {
	t.Helper()
	b, err := tr.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDiff(t *testing.T) {
	const pages = 16 // of the firmware
	for _, tt := range []struct {
		name    string
		change  func(*launch)
		step    int
		meaning string
		later   []string
	}{
		{"firmware", func(l *launch) { l.image[0x2345]++ }, 2, "the firmware images differ, first in the page at offset 0x2000", nil},
		{"larger firmware", func(l *launch) { l.image = append(make([]byte, 64<<10), l.image...) }, 0, "firmware stands elsewhere", nil},
		{"no hashes", func(l *launch) { l.noHashes = true }, pages, "on in A and off in B", nil},
		{"kernel", func(l *launch) { l.kernel = "Kernel" }, pages, "the kernels differ: SHA-256 ", nil},
		{"command line", func(l *launch) { l.cmdline = "debug" }, pages, "the command lines differ", nil},
		{"CPU", func(l *launch) { l.shape.CPU = measure.SignatureCPU(0xa00f11) }, pages + 1, "CPU signature 0x800f12 in A, 0xa00f11 in B", nil},
		{"features", func(l *launch) { l.shape.GuestFeatures |= measure.DebugSwap }, pages + 1, "guest features 0x1 in A, 0x21 in B", nil},
		{"VMM", func(l *launch) { l.shape.VMM = measure.QEMUAMD65 }, pages + 1, "VMM qemu@6.11 in A, qemu@6.5-amd in B", nil},
		{"more vCPUs", func(l *launch) { l.shape.VCPUs = 4 }, pages + 2, "A has 2 vCPUs, B 4", nil},
		{"one vCPU", func(l *launch) { l.shape.VCPUs = 1 }, pages + 2, "B ends here; A goes on with other vCPUs", []string{"A has 2 vCPUs, B 1"}},
		{"kernel and vCPUs", func(l *launch) { l.kernel, l.shape.VCPUs = "Kernel", 1 }, pages, "the kernels differ", []string{"A has 2 vCPUs, B 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newLaunch().transcript(t)
			l := newLaunch()
			tt.change(&l)
			d := Diff(a, l.transcript(t))
			if d == nil || d.Step != tt.step || !strings.Contains(d.Meaning, tt.meaning) {
				t.Fatalf("got %+v, want step %d: %s", d, tt.step, tt.meaning)
			}
			if diff := cmp.Diff(tt.later, d.Later); diff != "" {
				t.Error(diff)
			}
			if back := Diff(l.transcript(t), a); back == nil || back.Step != d.Step {
				t.Errorf("the other way round: %+v", back)
			}
		})
	}
}

// A firmware of which only the digest is known is compared as a whole.
func TestDiffWithState(t *testing.T) {
	a := newLaunch().transcript(t)
	l := newLaunch()
	l.fromState = true
	if d := Diff(a, l.transcript(t)); d != nil {
		t.Errorf("the same launch: %+v", d)
	}
	l.image[0]++
	for _, other := range []Transcript{a, func() Transcript { l := newLaunch(); l.fromState = true; return l.transcript(t) }()} {
		if d := Diff(other, l.transcript(t)); d == nil || d.Step != 0 || !strings.Contains(d.Meaning, "which page is not known") {
			t.Errorf("another firmware: %+v", d)
		}
	}
	if d := Diff(a, a); d != nil {
		t.Errorf("itself: %+v", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(mustEncode(f, newLaunch().transcript(f)))
	short := newLaunch()
	short.fromState = true
	tr := short.transcript(f)
	f.Add(mustEncode(f, tr))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Parse(data)
		if err != nil {
			if diff := cmp.Diff(Transcript{}, got); diff != "" {
				t.Fatal(diff)
			}
			return
		}
		again, err := Parse(mustEncode(t, got))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Fatal(diff)
		}
		if d := Diff(got, again); d != nil {
			t.Fatalf("it differs from itself: %+v", d)
		}
		if d := Diff(got, tr); d == nil && got.Measurement != tr.Measurement {
			t.Fatal("no difference between two measurements")
		}
	})
}
