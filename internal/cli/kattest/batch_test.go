package kattest

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/verifier"
)

// Every genuine VCEK report of the Milans, as often as makes 248, judged by one
// processor and by all, turn by turn: at best the ratio is their number.
func BenchmarkBatch(b *testing.B) {
	const corpus = "../../../../shared/corpus/"
	names, err := filepath.Glob(corpus + "reports/*.vcek.der")
	if err != nil || len(names) == 0 {
		b.Skipf("genuine reports are kept outside of the repository: %v", err)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	list, err := verifier.ParseCRL(read(corpus + "amd/crl_53a61dc059e5.crl"))
	if err != nil {
		b.Fatal(err)
	}
	var all []subject
	for _, name := range names {
		cert := read(name)
		if e, err := verifier.ParseEndorsement(cert); err != nil || e.Product != verifier.Milan {
			continue
		}
		table := make([]byte, 48)
		copy(table, []byte{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd})
		table[16], table[20], table[21] = 48, byte(len(cert)), byte(len(cert)>>8)
		report := read(name[:len(name)-len(".vcek.der")] + ".bin")
		all = append(all, subject{name, append(append(report, table...), cert...)})
	}
	for len(all) < 248 {
		all = append(all, all...)
	}
	p := verifier.Policy{
		Time: time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC), CRLs: []*x509.RevocationList{list}, AuthenticityOnly: true,
	}
	judge := func(workers int) time.Duration {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(workers))
		start := time.Now()
		results, err := judgeAll(b.Context(), verifier.New(nil), all, p)
		if err != nil {
			b.Fatal(err)
		}
		if err := exit(results); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	var one, many time.Duration
	for b.Loop() {
		one += judge(1)
		many += judge(runtime.NumCPU())
	}
	reports := float64(b.N * len(all))
	b.ReportMetric(float64(one.Microseconds())/reports, "µs/report-alone")
	b.ReportMetric(float64(many.Microseconds())/reports, "µs/report-together")
	b.ReportMetric(float64(one)/float64(many), "×")
}
