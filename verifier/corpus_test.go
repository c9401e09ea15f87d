package verifier_test

import (
	"crypto/x509"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/verifier"
)

// corpus holds genuine reports beside this repository. It is no part of it.
const corpus = "../../shared/corpus"

// anyProduct accepts every product at any level.
func anyProduct() map[verifier.Product]verifier.ProductPolicy {
	all := map[verifier.Product]verifier.ProductPolicy{}
	for _, p := range verifier.Products() {
		all[p] = verifier.ProductPolicy{}
	}
	return all
}

type genuine struct {
	name   string
	row    map[string]string
	report []byte
	cert   []byte
}

func (g genuine) policy(tb testing.TB) verifier.Policy {
	tb.Helper()
	cert, err := verifier.ParseCertificate(g.cert)
	if err != nil {
		tb.Fatal(err)
	}
	return verifier.Policy{Time: cert.NotBefore.Add(24 * time.Hour), VCEK: cert, AuthenticityOnly: true, Revocation: verifier.RevocationOff}
}

func readCorpus(tb testing.TB) []genuine {
	tb.Helper()
	index := filepath.Join(corpus, "index.tsv")
	f, err := os.Open(index)
	if os.IsNotExist(err) {
		tb.Skipf("%s is not there: genuine reports are kept outside of the repository", index)
	}
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	rows, err := r.ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	var all []genuine
	for _, row := range rows[1:] {
		g := genuine{name: filepath.Base(row[0]), row: map[string]string{}}
		for i, column := range rows[0] {
			g.row[column] = row[i]
		}
		if g.report, err = os.ReadFile(filepath.Join(corpus, g.row["file"])); err != nil {
			tb.Fatal(err)
		}
		if g.cert, err = os.ReadFile(filepath.Join(corpus, g.row["cert"])); err != nil {
			tb.Fatal(err)
		}
		all = append(all, g)
	}
	return all
}

func parse(tb testing.TB, data []byte) verifier.Input {
	tb.Helper()
	in, err := verifier.ParseInput(data)
	if err != nil {
		tb.Fatal(err)
	}
	return in
}

func verify(tb testing.TB, in verifier.Input, p verifier.Policy) verifier.Result {
	tb.Helper()
	r, err := verifier.New(nil).Verify(tb.Context(), in, p)
	if refusal := (*verifier.Refusal)(nil); err != nil && !errors.As(err, &refusal) {
		tb.Fatal(err)
	}
	if success := r.Verdict == verifier.Verified || r.Verdict == verifier.Authentic && p.AuthenticityOnly; success != (err == nil) {
		tb.Errorf("verdict %v with error %v", r.Verdict, err)
	}
	return r
}

// failures returns the codes of the checks that failed, in order.
func failures(r verifier.Result) []verifier.Code {
	var codes []verifier.Code
	for _, c := range r.With(verifier.Fail) {
		codes = append(codes, c.Code)
	}
	return codes
}

func TestGenuineReportsAreAuthentic(t *testing.T) {
	all := readCorpus(t)
	if len(all) != 46 {
		t.Errorf("%d reports, want 46", len(all))
	}
	for _, g := range all {
		t.Run(g.name, func(t *testing.T) {
			in := parse(t, g.report)
			r := verify(t, in, g.policy(t))
			if r.Verdict != verifier.Authentic {
				t.Errorf("verdict %v: %+v", r.Verdict, r.With(verifier.Fail))
			}
			if got, want := r.Product.String(), g.row["product"]; got != want {
				t.Errorf("product %s, want %s", got, want)
			}
			if got, want := r.SigningKey.String(), g.row["signing_key"]; got != want {
				t.Errorf("signing key %s, want %s", got, want)
			}
			for _, field := range []struct{ name, got string }{
				{"version", fmt.Sprint(in.Report.Version)},
				{"vmpl", fmt.Sprint(in.Report.VMPL)},
				{"policy", fmt.Sprintf("0x%x", uint64(in.Report.Policy))},
				{"platform_info", fmt.Sprintf("0x%x", uint64(in.Report.PlatformInfo))},
				{"measurement", in.Report.Measurement.String()},
				{"chip_id_masked", fmt.Sprint(in.Report.ChipID == [64]byte{})},
			} {
				if field.got != g.row[field.name] {
					t.Errorf("%s: %s, want %s", field.name, field.got, g.row[field.name])
				}
			}
		})
	}
}

// Bytes sampled all over the report (each in some report), one bit flipped, are
// refused: by the parser or by the signature. The go-sev-guest library lets a
// bit of 0x18a pass.
func TestGenuineReportsWithAFlippedBit(t *testing.T) {
	for i, g := range readCorpus(t) {
		for offset := i % 23; offset < verifier.ReportSize; offset += 23 {
			for _, bit := range []byte{1, 0x80} {
				data := append([]byte(nil), g.report...)
				data[offset] ^= bit
				in, err := verifier.ParseInput(data)
				if err != nil {
					continue
				}
				if r := verify(t, in, g.policy(t)); r.Verdict == verifier.Authentic {
					t.Errorf("%s: byte 0x%03x with bit 0x%02x flipped is accepted", g.name, offset, bit)
				}
			}
		}
		if data := append([]byte(nil), g.report...); data[0x18a] < 0xff {
			data[0x18a] ^= 0x80
			if in, err := verifier.ParseInput(data); err == nil && verify(t, in, g.policy(t)).Verdict == verifier.Authentic {
				t.Errorf("%s: CPUID_STEP (0x18a) with bit 7 flipped is accepted", g.name)
			}
		}
	}
}

// What is genuine is not all acceptable.
func TestGenuineReportsUnderAStrictPolicy(t *testing.T) {
	for _, g := range readCorpus(t) {
		t.Run(g.name, func(t *testing.T) {
			in := parse(t, g.report)
			p := g.policy(t)
			p.AuthenticityOnly = false
			p.Products = anyProduct()
			p.References = []verifier.Reference{{Measurement: in.Report.Measurement}}
			p.ReportData, p.HostData = &in.Report.ReportData, &in.Report.HostData
			want := map[verifier.Code]bool{
				verifier.CodeDebug:       in.Report.Policy&verifier.PolicyDebug != 0,
				verifier.CodeVMPL:        g.row["vmpl"] != "0",
				verifier.CodeCSPID:       g.row["signing_key"] == "VLEK",
				verifier.CodeProvisional: g.row["committed_tcb"] != g.row["current_tcb"] || in.Report.Committed != in.Report.Current,
			}
			got := map[verifier.Code]bool{}
			for _, code := range failures(verify(t, in, p)) {
				got[code] = true
				if !want[code] {
					t.Errorf("%s fails", code)
				}
			}
			for code, fails := range want {
				if fails && !got[code] {
					t.Errorf("%s passes", code)
				}
			}
		})
	}
}

func TestGenuineVLEKHasExpired(t *testing.T) {
	n := 0
	for _, g := range readCorpus(t) {
		if g.row["signing_key"] != "VLEK" {
			continue
		}
		n++
		p := g.policy(t)
		p.Time = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
		r := verify(t, parse(t, g.report), p)
		if got := failures(r); len(got) != 1 || got[0] != verifier.CodeValidity || r.Verdict != verifier.Forged {
			t.Errorf("%s: %v, failures %v", g.name, r.Verdict, got)
		}
	}
	if n == 0 {
		t.Error("no VLEK in the corpus")
	}
}

// An ASK that AMD revoked and replaced is not among the roots, and another
// report's certificate does not do.
func TestGenuineReportWithAnothersCertificate(t *testing.T) {
	all := readCorpus(t)
	for i, g := range all {
		other := all[(i+1)%len(all)]
		if string(other.cert) == string(g.cert) {
			continue
		}
		r := verify(t, parse(t, g.report), other.policy(t))
		if r.Verdict != verifier.Forged || !strings.Contains(fmt.Sprint(failures(r)), string(verifier.CodeSignature)) {
			t.Errorf("%s under %s: %v, failures %v", g.name, other.name, r.Verdict, failures(r))
		}
	}
}

// readCRL reads one of the corpus's revocation lists, all of them AMD's.
func readCRL(tb testing.TB, name string) *x509.RevocationList {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(corpus, "amd", name))
	if err != nil {
		tb.Skipf("a genuine revocation list is missing: %v", err)
	}
	list, err := verifier.ParseCRL(data)
	if err != nil {
		tb.Fatal(err)
	}
	return list
}
