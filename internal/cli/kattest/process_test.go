package kattest_test

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A whole process that judges one genuine report with every check, AMD's
// revocation list included, beside go-sev-guest's check tool, which looks for no
// list: the CPU time of both, turn by turn.
func BenchmarkVerifyProcess(b *testing.B) {
	const corpus = "../../../../shared/corpus/"
	read := func(name string) []byte {
		data, err := os.ReadFile(corpus + name)
		if err != nil {
			b.Skipf("genuine reports are kept outside of the repository: %v", err)
		}
		return data
	}
	report, vcek := read("reports/43bf5354371e.bin"), read("reports/43bf5354371e.vcek.der")
	dir := b.TempDir()
	file := filepath.Join(dir, "report.bin")
	if err := os.WriteFile(file, withTable(report, vcek), 0o600); err != nil {
		b.Fatal(err)
	}
	for name, pkg := range map[string]string{"kattest": "../../../cmd/kattest", "check": "github.com/google/go-sev-guest/tools/check"} {
		build := exec.Command("go", "build", "-ldflags=-s", "-o", filepath.Join(dir, name), pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as releases are
		if out, err := build.CombinedOutput(); err != nil {
			b.Fatalf("building %s: %v\n%s", pkg, err, out)
		}
	}
	run := func(args ...string) time.Duration {
		cmd := exec.Command(filepath.Join(dir, args[0]), args[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", args, err, out)
		}
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	field := func(offset, length int) string { return hex.EncodeToString(report[offset:][:length]) }
	var ours, theirs time.Duration
	for b.Loop() {
		ours += run("kattest", "verify", file, "--min-tcb", "bootloader=4,tee=0,snp=24,microcode=219", "--offline", "--crl", corpus+"amd/crl_53a61dc059e5.crl", "--at", "2025-06-01T00:00:00Z",
			"--measurement", field(0x90, 48), "--host-data", field(0xc0, 32), "--report-data", field(0x50, 64))
		theirs += run("check", "-in", file, "-network=false", "-guest_policy", "196608",
			"-measurement", field(0x90, 48), "-host_data", field(0xc0, 32), "-report_data", field(0x50, 64))
	}
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N), "kattest-µs")
	b.ReportMetric(float64(theirs.Microseconds())/float64(b.N), "check-µs")
	b.ReportMetric(float64(ours)/float64(theirs), "×check")
}

// withTable puts a certificate table with a VCEK behind a report.
func withTable(report, vcek []byte) []byte {
	table := make([]byte, 48)
	copy(table, []byte{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd})
	table[16] = 48
	table[20], table[21] = byte(len(vcek)), byte(len(vcek)>>8)
	return slices.Concat(report, table, vcek)
}
