package kattest

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/verifier"
)

// published is a release of one vCPU of each CPU, at each mask of features.
func published(t testing.TB, cpus []string, masks ...uint64) signedRelease {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "stack")
	if err := clitest.WriteStack(dir, "quiet"); err != nil {
		t.Fatal(err)
	}
	in, err := readStack(dir, measure.QEMU)
	if err != nil {
		t.Fatal(err)
	}
	var shapes []measure.Shape
	for _, name := range cpus {
		cpu, err := measure.ParseCPU(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, mask := range masks {
			shapes = append(shapes, measure.Shape{VMM: measure.QEMU, VCPUs: 1, CPU: cpu, GuestFeatures: mask})
		}
	}
	r, err := release.New(in.stack, in.firmware, shapes, release.Enforced)
	if err != nil {
		t.Fatal(err)
	}
	r.Serial = 5
	return signedRelease{Release: r, signed: signed{file: "r.json", by: "key k.pub"}}
}

// launched is the digest of a launch of the release's stack.
func launched(t testing.TB, r signedRelease, vcpus int, cpu measure.CPU, features uint64) measure.Digest {
	t.Helper()
	digests, err := r.Measure([]measure.Shape{{VMM: measure.QEMU, VCPUs: vcpus, CPU: cpu, GuestFeatures: features}})
	if err != nil {
		t.Fatal(err)
	}
	return digests[0]
}

func TestComputeLaunches(t *testing.T) {
	r := published(t, []string{"EPYC-v4", "EPYC-Milan"}, 1, 0x21)
	cpu := func(fms string) measure.CPU {
		c, err := measure.ParseFMS(fms)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	genoa := verifier.Report{Version: 3, Family: 25, Model: 17, Stepping: 1}
	old := verifier.Report{Version: 2, Family: 25, Model: 17, Stepping: 1}
	for _, tt := range []struct {
		name   string
		report verifier.Report
		launch measure.Digest
		vcpus  int // demanded
		want   string
	}{
		{"more vCPUs", old, launched(t, r, 512, cpu("23/1/2"), 1), 0, "512 vCPUs, CPU EPYC-v4 (signature 0x800f12), guest features 0x1; computed"},
		{"other features of the table", old, launched(t, r, 3, cpu("25/1/1"), 0x21), 0, "3 vCPUs, CPU EPYC-Milan (signature 0xa00f11), guest features 0x21; computed"},
		{"the number demanded", old, launched(t, r, 3, cpu("23/1/2"), 1), 3, "3 vCPUs"},
		{"the host's CPU", genoa, launched(t, r, 3, cpu("25/17/1"), 1), 0, "3 vCPUs, CPU 0xa10f11 (signature 0xa10f11), guest features 0x1; computed"},

		{"another number than demanded", old, launched(t, r, 3, cpu("23/1/2"), 1), 4, ""},
		{"the host's CPU, in a report that does not name it", old, launched(t, r, 3, cpu("25/17/1"), 1), 0, ""},
		{"another CPU", genoa, launched(t, r, 3, cpu("25/17/0"), 1), 0, ""},
		{"other features", genoa, launched(t, r, 3, cpu("25/17/1"), 0x41), 0, ""},
		{"no launch", genoa, measure.Digest{}, 0, ""},
		{"a processor that cannot be", verifier.Report{Version: 5, Stepping: 0xff}, measure.Digest{}, 0, ""},
		{"no processor", verifier.Report{Version: 5}, measure.Digest{}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.report.Measurement = tt.launch
			refs, err := computeLaunches([]signedRelease{r}, tt.vcpus)(context.Background(), tt.report)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if len(refs) != 0 {
					t.Errorf("found %+v", refs)
				}
				return
			}
			if len(refs) != 1 || refs[0].Measurement != tt.launch || !strings.Contains(refs[0].Label, tt.want) || !strings.Contains(refs[0].Label, "release r.json (serial 5), signed by key k.pub: ") ||
				uint64(refs[0].RequiredBits) != r.Policy.Required || uint64(refs[0].ForbiddenBits) != r.Policy.Forbidden {
				t.Errorf("found %+v", refs)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := computeLaunches([]signedRelease{r}, 0)(ctx, genoa); err == nil {
		t.Error("it went on after the context's end")
	}
}

// However large a table is, what is computed has a bound.
func TestFurtherShapesAreBounded(t *testing.T) {
	var table []release.Entry
	for i := range 4 * maxWays {
		table = append(table, release.Entry{VMM: measure.QEMU, VCPUs: 1, CPUSignature: 1, GuestFeatures: uint64(i)<<1 | 1})
	}
	host := measure.SignatureCPU(2)
	if got := len(furtherShapes(table, &host, 0)); got != maxWays*measure.MaxVCPUs {
		t.Errorf("%d shapes, want %d", got, maxWays*measure.MaxVCPUs)
	}
}

func BenchmarkComputeLaunches(b *testing.B) {
	r := published(b, []string{"EPYC-v4", "EPYC-Milan", "EPYC-Genoa"}, 1)
	report := verifier.Report{Version: 3, Family: 26, Model: 2, Stepping: 1}
	compute := computeLaunches([]signedRelease{r}, 0)
	for b.Loop() {
		if refs, err := compute(context.Background(), report); err != nil || len(refs) > 0 {
			b.Fatal(refs, err)
		}
	}
}
