package kattest

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/measure"
)

// job is the full job of kattest measure: 4 MiB of firmware, 12 MB of kernel and
// 40 MB of initrd, in files.
type job struct {
	firmware, kernel, initrd []byte
	flags                    inputFlags
}

func newJob(b *testing.B) job {
	b.Helper()
	tail := clitest.Firmware()
	j := job{
		firmware: append(bytes.Repeat([]byte{0x90}, 4<<20-len(tail)), tail...),
		kernel:   bytes.Repeat([]byte("kernel"), 2_000_000),
		initrd:   bytes.Repeat([]byte("initrd.."), 5_000_000),
	}
	dir := b.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			b.Fatal(err)
		}
		return path
	}
	j.flags = inputFlags{
		firmware: file("OVMF.fd", j.firmware), kernel: file("vmlinuz", j.kernel), initrd: file("initrd.cpio", j.initrd),
		cmdline: "console=ttyS0",
	}
	return j
}

func (j job) measure(b *testing.B, shapes []measure.Shape) {
	in, err := j.flags.read(measure.QEMU)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := in.measure(shapes); err != nil {
		b.Fatal(err)
	}
}

// floor is how long the hashing alone must take, of bytes that are in memory:
// the initrd's SHA-256, which nothing can divide, or all of it divided by the
// processors.
func (j job) floor() time.Duration {
	start := time.Now()
	sha256.Sum256(j.initrd)
	initrd := time.Since(start)
	sha256.Sum256(j.kernel)
	for page := j.firmware; len(page) > 0; page = page[measure.PageSize:] {
		sha512.Sum384(page[:measure.PageSize])
	}
	return max(initrd, time.Since(start)/time.Duration(runtime.GOMAXPROCS(0)))
}

func single() []measure.Shape {
	return []measure.Shape{{VMM: measure.QEMU, VCPUs: 1, CPU: measure.SignatureCPU(0x800f12), GuestFeatures: measure.SNPActive}}
}

// matrix is 192 numbers of vCPUs × 30 CPU models × 4 masks of guest features.
func matrix() []measure.Shape {
	var shapes []measure.Shape
	for _, cpu := range measure.CPUs()[:30] {
		for _, features := range []uint64{0x1, 0x21, 0x201, 0x221} {
			for n := range 192 {
				shapes = append(shapes, measure.Shape{VMM: measure.QEMU, VCPUs: n + 1, CPU: cpu, GuestFeatures: features})
			}
		}
	}
	return shapes
}

// The full job, in turns with its floor: x-floor is by how much the median of the
// one exceeds the other's.
func BenchmarkFullJob(b *testing.B) {
	j := newJob(b)
	shapes := single()
	var jobs, floors []time.Duration
	for b.Loop() {
		start := time.Now()
		j.measure(b, shapes)
		jobs = append(jobs, time.Since(start))
		floors = append(floors, j.floor())
	}
	b.ReportMetric(median(jobs)*1e3, "job-ms")
	b.ReportMetric(median(floors)*1e3, "floor-ms")
	b.ReportMetric(median(jobs)/median(floors), "x-floor")
}

// The full job with a matrix of 23,040 launches, in turns with that of one.
func BenchmarkMatrix(b *testing.B) {
	j := newJob(b)
	one, all := single(), matrix()
	var ones, alls []time.Duration
	for b.Loop() {
		start := time.Now()
		j.measure(b, one)
		ones = append(ones, time.Since(start))
		start = time.Now()
		j.measure(b, all)
		alls = append(alls, time.Since(start))
	}
	b.ReportMetric(median(ones)*1e3, "one-ms")
	b.ReportMetric(median(alls)*1e3, "matrix-ms")
	b.ReportMetric(median(alls)/median(ones), "x-one")
}

// median returns the median in seconds.
func median(d []time.Duration) float64 {
	slices.Sort(d)
	return d[len(d)/2].Seconds()
}
