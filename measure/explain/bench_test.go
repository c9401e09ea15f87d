//go:build unix

package explain

import (
	"syscall"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/explain/internal/lanes"
)

// BenchmarkSearch rules spaces out and reports the distinct digests that were
// computed and compared in a second of processor time, on each path.
//
//	deep    a release's launches with up to 512 vCPUs, as kattest explain searches
//	        them: what a page of a vCPU takes is shared by many digests
//	wide    1024 masks of guest features and 12 CPU signatures with up to 8 vCPUs
func BenchmarkSearch(b *testing.B) {
	release := twoReleases(b, measure.MaxVCPUs)
	release.Sources, release.Features = release.Sources[:1], LikelyFeatures()
	wide := release
	wide.VCPUs, wide.Features, wide.CPUs = 8, AllFeatures()[:1024], wide.CPUs[:0]
	for i := range 11 { // and Milan, which is expected
		wide.CPUs = append(wide.CPUs, measure.SignatureCPU(0xa10f20+uint32(i)))
	}
	for _, bench := range []struct {
		name  string
		space Space
	}{{"deep", release}, {"wide", wide}} {
		for _, path := range lanes.Paths() {
			b.Run(bench.name+"/"+path.String(), func(b *testing.B) {
				var searched uint64
				cpu := cpuTime(b)
				for b.Loop() {
					a, err := Search(b.Context(), measure.Digest{}, bench.space, Options{path: path})
					if err != nil || !a.RuledOut() {
						b.Fatalf("%+v, %v", a, err)
					}
					searched += a.Searched
				}
				b.ReportMetric(float64(searched)/(cpuTime(b)-cpu).Seconds()/1e6, "Mcandidates/CPU-s")
				b.ReportMetric(float64(searched)/float64(b.N), "candidates")
			})
		}
	}
}

// cpuTime is the processor time of this process.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
