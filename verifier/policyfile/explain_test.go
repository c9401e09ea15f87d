package policyfile_test

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/policyfile"
)

// corpus holds genuine reports beside this repository. It is no part of it.
const corpus = "../../../shared/corpus"

type genuine struct {
	name, product, key string
	in                 verifier.Input
	policy             verifier.Policy // what the report cannot do without
}

func readCorpus(t *testing.T) []genuine {
	t.Helper()
	index := filepath.Join(corpus, "index.tsv")
	f, err := os.Open(index)
	if os.IsNotExist(err) {
		t.Skipf("%s is not there: genuine reports are kept outside of the repository", index)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var all []genuine
	for _, row := range rows[1:] {
		report, err := os.ReadFile(filepath.Join(corpus, row[0]))
		if err != nil {
			t.Fatal(err)
		}
		in, err := verifier.ParseInput(report)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(corpus, row[1]))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := verifier.ParseCertificate(data)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, genuine{
			name: filepath.Base(row[0]), product: row[2], key: row[3], in: in,
			policy: verifier.Policy{Time: cert.NotBefore.Add(24 * time.Hour), VCEK: cert},
		})
	}
	return all
}

// judge judges in by a file's policy with what only a question has. Whether the
// chain was revoked is not asked: there is no list of the report's day.
func judge(t *testing.T, in verifier.Input, f policyfile.File, question verifier.Policy) verifier.Result {
	t.Helper()
	p := f.Policy
	p.Time, p.VCEK, p.Revocation = question.Time, question.VCEK, verifier.RevocationOff
	p.References = []verifier.Reference{{Measurement: in.Report.Measurement}}
	p.HostData, p.ReportData = &in.Report.HostData, &in.Report.ReportData
	r, err := verifier.New(nil).Verify(t.Context(), in, p)
	if _, refused := errors.AsType[*verifier.Refusal](err); err != nil && !refused {
		t.Fatal(err)
	}
	return r
}

func failures(r verifier.Result) string {
	var codes []string
	for _, c := range r.With(verifier.Fail) {
		codes = append(codes, string(c.Code))
	}
	return strings.Join(codes, " ")
}

// What the default makes of every genuine report, its measurement, workload and
// freshness given: -v prints each, and why it is refused.
func TestDefaultOverTheCorpus(t *testing.T) {
	f := policyfile.Default()
	accepted := map[string]int{}
	for _, g := range readCorpus(t) {
		r := judge(t, g.in, f, g.policy)
		t.Logf("%s %s %s: %v", g.name, g.product, g.key, r.Verdict)
		for _, c := range r.With(verifier.Fail) {
			t.Logf("    %s: expected %s, found %s; %s", c.Code, c.Expected, c.Found, c.Reason)
		}
		if r.Verdict == verifier.Verified {
			accepted[g.product]++
		}
		if g.key == "VLEK" && !strings.Contains(failures(r), string(verifier.CodeCSPID)) {
			t.Errorf("%s: a VLEK of a provider whom nobody named passes", g.name)
		}
	}
	// Those of firmware after AMD-SB-3020; the newest Milan of the corpus has snp 24.
	if want := map[string]int{"Genoa": 3}; fmt.Sprint(accepted) != fmt.Sprint(want) {
		t.Errorf("accepted %v, want %v", accepted, want)
	}
}

// Explain says what the verifier would, and the policy that it prints is one
// under which the report passes; for genuine reports and for made-up ones.
func TestExplainAgreesWithTheVerifier(t *testing.T) {
	f := policyfile.Default()
	strict := parse(t, strictText)
	for _, g := range readCorpus(t) {
		r := judge(t, g.in, f, g.policy)
		s := policyfile.Subject{Report: g.in.Report, Product: r.Product, CSPID: cspID(r)}
		agree(t, g.name, f, s, r)
		agree(t, g.name, strict, s, judge(t, g.in, strict, g.policy))

		e := policyfile.Explain(f, s)
		needed, err := policyfile.Parse([]byte(e.Policy), nil)
		if err != nil {
			t.Fatalf("%s: %v in\n%s", g.name, err, e.Policy)
		}
		after := judge(t, g.in, needed, g.policy)
		if after.Verdict != verifier.Verified {
			t.Errorf("%s: %v, %s, under\n%s", g.name, after.Verdict, failures(after), e.Policy)
		}
		if accepted := r.Verdict == verifier.Verified; accepted != (len(e.Relaxes) == 0) {
			t.Errorf("%s: the default says %v, and %v would relax it", g.name, r.Verdict, e.Relaxes)
		}
	}
}

func TestExplainAgreesOnMadeUpReports(t *testing.T) {
	files := []policyfile.File{policyfile.Default(), parse(t, strictText), parse(t, rich)}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		in := madeUp(t, random)
		f := files[i%len(files)]
		r := judge(t, in, f, verifier.Policy{Time: time.Unix(1, 0)})
		s := policyfile.Subject{Report: in.Report, Product: r.Product}
		agree(t, fmt.Sprintf("report %d", i), f, s, r)
		if e := policyfile.Explain(f, s); t.Failed() {
			t.Fatalf("%+v", e)
		}
	}
}

var strictText = `version: 1
products:
  Milan: {tcb: {bootloader: 4, snp: 24, microcode: 219}, firmware: 1.55.29}
  Genoa: {tcb: {bootloader: 10, microcode: 84}, launch-mitigations: 3, current-mitigations: 7, firmware: 1.55.40}
guest-policy: {SMT: forbidden, abi: "1.50", SINGLE_SOCKET: required}
platform: {SMT_EN: forbidden, ECC_EN: required}
chips: ["` + chip + `"]
id-block: {id-keys: [` + digest + `], author-keys: [` + digest + `], guest-svn: 5, family-id: 000102030405060708090a0b0c0d0e0f, image-id: 000102030405060708090a0b0c0d0e0f}
migration-agents: [` + digest[:64] + `]
csp-ids: [somebody]
`

func cspID(r verifier.Result) string {
	for _, c := range r.Checks {
		if c.Code == verifier.CodeCSPID {
			return c.Found
		}
	}
	return ""
}

// agree holds the rows of an explanation against the outcomes of their checks.
func agree(t *testing.T, name string, f policyfile.File, s policyfile.Subject, r verifier.Result) {
	t.Helper()
	codes := map[string][]verifier.Code{}
	for _, field := range policyfile.Fields() {
		codes[field.Path] = field.Checks
	}
	passes := map[verifier.Code]bool{}
	for _, row := range policyfile.Explain(f, s).Fields {
		path := strings.Replace(row.Field, s.Product.String(), "PRODUCT", 1)
		of, ok := codes[path]
		if !ok || len(of) == 0 {
			t.Fatalf("%s: no such field: %s", name, row.Field)
		}
		for _, code := range of {
			before, seen := passes[code]
			passes[code] = row.Passes && (before || !seen)
		}
	}
	passes[verifier.CodeMeasurement], passes[verifier.CodeHostData] = true, true // judge gives them
	if _, ok := f.Policy.Products[s.Product]; !ok {
		// The verifier has no minima to hold it against, and so no such checks.
		for _, code := range []verifier.Code{verifier.CodeReportedTCB, verifier.CodeCommittedTCB, verifier.CodeLaunchTCB} {
			delete(passes, code)
		}
	}
	for _, c := range r.Checks {
		explained, ok := passes[c.Code]
		if !ok || c.Code == verifier.CodeCSPID && s.CSPID == "" {
			continue
		}
		if passed := c.Outcome != verifier.Fail; passed != explained {
			t.Errorf("%s: %s: the verifier says %v (%s), the explanation %t", name, c.Code, c.Outcome, c.Found, explained)
		}
		delete(passes, c.Code)
	}
	for code, explained := range passes {
		if !explained && (code != verifier.CodeCSPID || s.CSPID != "") {
			t.Errorf("%s: %s: the verifier has nothing against it, the explanation has", name, code)
		}
	}
}

// madeUp returns a report that nobody signed, of a product that it names.
func madeUp(t *testing.T, random *rand.Rand) verifier.Input {
	t.Helper()
	data := make([]byte, verifier.ReportSize)
	pick := func(offset int, values ...byte) { data[offset] = values[random.IntN(len(values))] }
	fill := func(offset, n int, with ...[]byte) {
		copy(data[offset:offset+n], with[random.IntN(len(with))])
	}
	product := random.IntN(3)
	pick(0x000, 3, 5)
	pick(0x004, 0, 4, 5, 6)
	pick(0x008, 0, 49, 50, 55)
	pick(0x009, 0, 1, 2)
	pick(0x00a, 2, 3, 0x0a, 0x06, 0x12, 0x22, 0x42, 0x82, 0x13)
	pick(0x00b, 0, 1, 2)
	fill(0x010, 16, count(16, 0), count(16, 1))
	fill(0x020, 16, count(16, 0), make([]byte, 16))
	pick(0x030, 0, 0, 1, 3)
	data[0x034] = 1
	pick(0x040, 0x20, 0x21, 0x25, 0x24, 0x26, 0x00, 0x67, 0x80)
	pick(0x048, 0, 0, 1, 4)
	fill(0x0e0, 48, count(48, 1), count(48, 2), make([]byte, 48))
	fill(0x110, 48, count(48, 1), count(48, 2), make([]byte, 48))
	fill(0x160, 32, slices.Repeat([]byte{0xff}, 32), count(32, 1), count(32, 2))
	copy(data[0x188:], [][]byte{{0x19, 0x01, 1}, {0x19, 0x11, 1}, {0x1a, 0x02, 1}}[product])
	fill(0x1a0, 64, count(64, 1), make([]byte, 64))
	snp := []int{6, 6, 3}[product]
	for _, tcb := range []int{0x038, 0x180, 0x1e0, 0x1f0} {
		pick(tcb, 4, 10, 0)
		pick(tcb+snp, 3, 4, 24, 27, 30, 31)
		pick(tcb+7, 25, 84, 90, 219)
	}
	if random.IntN(2) == 0 {
		copy(data[0x1e0:0x1e8], data[0x038:])
	}
	for _, firmware := range []int{0x1e8, 0x1ec} {
		copy(data[firmware:], [][]byte{{29, 55, 1}, {40, 55, 1}, {3, 58, 1}}[random.IntN(3)])
	}
	if data[0] == 5 {
		pick(0x1f8, 0, 3, 7, 0x16)
		pick(0x200, 0, 3, 7, 0x16)
	}
	in, err := verifier.ParseInput(data)
	if err != nil {
		t.Fatal(err)
	}
	return in
}
