package render_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/render"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// hostile is what an adversary may have written into a certificate's subject or a
// file's name.
const hostile = "a\x1b[2J\x00\u202e<b>&\"'\xff]]>"

func check(code verifier.Code, outcome verifier.Outcome) verifier.Check {
	return verifier.Check{Code: code, Outcome: outcome, Expected: "x", Found: hostile, Reason: hostile, Hint: "try"}
}

func result(v verifier.Verdict, checks ...verifier.Check) verifier.Result {
	return verifier.Result{
		MediaType: verifier.MediaType, Subject: "dir/" + hostile + ".bin", Form: verifier.FormReport, Verdict: v, Time: at, Product: verifier.Milan,
		SigningKey: verifier.VCEK, Checks: checks,
	}
}

// good passes all checks that a policy without an ID block has.
func good() verifier.Result {
	var checks []verifier.Check
	for _, info := range verifier.Checks() {
		if info.Class != verifier.ClassFormat && !strings.HasPrefix(string(info.Code), "id-block.") {
			checks = append(checks, verifier.Check{Code: info.Code, Outcome: verifier.Pass})
		}
	}
	return result(verifier.Verified, checks...)
}

// with returns good with one check's outcome changed, and the verdict to match.
func with(code verifier.Code, o verifier.Outcome, v verifier.Verdict) verifier.Result {
	r := good()
	for i := range r.Checks {
		if r.Checks[i].Code == code {
			r.Checks[i].Outcome = o
		}
	}
	r.Verdict = v
	return r
}

func TestTextEscapes(t *testing.T) {
	bad := result(verifier.Mismatch, check(verifier.CodeMeasurement, verifier.Fail), check(verifier.CodeVMPL, verifier.Skipped))
	for name, write := range map[string]func(io.Writer) error{
		"one":  func(w io.Writer) error { return render.Text(w, bad) },
		"many": func(w io.Writer) error { return render.TextSummary(w, []verifier.Result{bad, good()}) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(b.String(), func(r rune) bool { return r < 0x20 && r != '\n' || r == '\u202e' }); i >= 0 {
			t.Errorf("%s: a control character at %d of %q", name, i, b.String())
		}
		if !strings.Contains(b.String(), `\x1b[2J`) {
			t.Errorf("%s: what was found is not told: %q", name, b.String())
		}
	}
}

func TestText(t *testing.T) {
	r := with(verifier.CodeMeasurement, verifier.Fail, verifier.Mismatch)
	r.Checks = r.Checks[:0]
	r.Checks = append(r.Checks, verifier.Check{
		Code: verifier.CodeVMPL, Outcome: verifier.Fail, Field: "VMPL", Bytes: &verifier.Range{Offset: 0x30, Length: 4},
		Expected: "0", Found: "1", Reason: "asked elsewhere", Hint: "ask again",
	})
	var b bytes.Buffer
	if err := render.Text(&b, r); err != nil {
		t.Fatal(err)
	}
	want := `CHECK  OUTCOME  EXPECTED  FOUND
vmpl   FAIL     0         1

vmpl (VMPL, bytes 0x030 to 0x033): asked elsewhere
  expected  0
  found     1
  hint      ask again

REFUSED: 1 of 1 checks fail
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJSON(t *testing.T) {
	for _, r := range []verifier.Result{good(), with(verifier.CodeDebug, verifier.Fail, verifier.Mismatch)} {
		r.Subject = "report.bin"
		var b bytes.Buffer
		if err := render.JSON(&b, r); err != nil {
			t.Fatal(err)
		}
		var again verifier.Result
		if err := json.Unmarshal(b.Bytes(), &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Errorf("reads as another (-want +got):\n%s", diff)
		}
	}
	var b bytes.Buffer
	if err := render.JSONSummary(&b, []verifier.Result{good(), good(), with(verifier.CodeDebug, verifier.Fail, verifier.Mismatch)}); err != nil {
		t.Fatal(err)
	}
	var s render.Summary
	if err := json.Unmarshal(b.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"verified": 2, "mismatch": 1}, s.Verdicts); diff != "" || len(s.Results) != 3 {
		t.Errorf("%d results (-want +got):\n%s", len(s.Results), diff)
	}
	if render.JSON(io.Discard, verifier.Result{}) == nil {
		t.Error("a result without a verdict is written")
	}
}

func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	bad := result(verifier.Mismatch, check(verifier.CodeDebug, verifier.Fail), check(verifier.CodeVMPL, verifier.Skipped))
	if err := render.JUnit(&b, []verifier.Result{good(), bad}); err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(&b)
	counts, attrs := map[string]int{}, map[string]string{}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			counts[e.Name.Local]++
			for _, a := range e.Attr {
				if e.Name.Local == "testsuites" {
					attrs[a.Name.Local] = a.Value
				}
			}
		}
	}
	n := len(good().Checks)
	want := map[string]int{"testsuites": 1, "testsuite": 2, "properties": 2, "property": 6, "testcase": n + 2, "failure": 1, "skipped": 1}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("elements (-want +got):\n%s", diff)
	}
	if attrs["failures"] != "1" || attrs["skipped"] != "1" {
		t.Errorf("testsuites: %v", attrs)
	}
}

func TestSARIF(t *testing.T) {
	debug := check(verifier.CodeDebug, verifier.Fail)
	debug.Bytes = &verifier.Range{Offset: 8, Length: 8}
	inEvidence := result(verifier.Mismatch, debug)
	inEvidence.Form = verifier.FormEvidence
	var b bytes.Buffer
	err := render.SARIF(&b, []verifier.Result{good(), result(verifier.Mismatch, debug, check(verifier.CodeVMPL, verifier.Skipped)), inEvidence}, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	var log struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
			Artifacts []struct{ Location struct{ URI string } }
			Results   []struct {
				RuleID    string
				RuleIndex int
				Level     string
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ Index int }
						Region           *struct{ ByteOffset, ByteLength int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(b.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	if log.Version != "2.1.0" || len(run.Tool.Driver.Rules) != len(verifier.Checks()) || len(run.Artifacts) != 3 || len(run.Results) != 3 {
		t.Fatalf("version %s, %d rules, %d artifacts, %d results", log.Version, len(run.Tool.Driver.Rules), len(run.Artifacts), len(run.Results))
	}
	if strings.ContainsAny(run.Artifacts[0].Location.URI, " \x1b<\"") {
		t.Errorf("URI %q", run.Artifacts[0].Location.URI)
	}
	for i, want := range []struct {
		level    string
		artifact int
		region   bool
	}{{"error", 1, true}, {"note", 1, false}, {"error", 2, false}} {
		got := run.Results[i]
		place := got.Locations[0].PhysicalLocation
		if got.Level != want.level || place.ArtifactLocation.Index != want.artifact || (place.Region != nil) != want.region {
			t.Errorf("result %d: %+v, want %+v", i, got, want)
		}
		if run.Tool.Driver.Rules[got.RuleIndex].ID != got.RuleID {
			t.Errorf("result %d: rule %d is not %s", i, got.RuleIndex, got.RuleID)
		}
	}
}

// claims are an EAR's, by the names of the draft.
type claims struct {
	Profile  string                            `json:"eat_profile"`
	IAT      int64                             `json:"iat"`
	Status   string                            `json:"ear_status"`
	Verifier struct{ Developer, Build string } `json:"ear_verifier_id"`
	Submods  map[string]struct {
		Status   string         `json:"ear_status"`
		Vector   map[string]int `json:"ear_trustworthiness_vector"`
		Policies []string       `json:"ear_appraisal_policy_ids"`
	} `json:"submods"`
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// open checks an ES256 token by hand.
func open(token string, key *ecdsa.PublicKey) (claims, bool) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	var c claims
	if len(parts) != 3 {
		return c, false
	}
	payload, errP := base64.RawURLEncoding.DecodeString(parts[1])
	sig, errS := base64.RawURLEncoding.DecodeString(parts[2])
	if errP != nil || errS != nil || len(sig) != 64 || json.Unmarshal(payload, &c) != nil {
		return c, false
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return c, ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

func TestEAR(t *testing.T) {
	simulated := good()
	simulated.Simulated = true
	authentic := good()
	authentic.Verdict, authentic.AuthenticityOnly = verifier.Authentic, true
	authentic.Checks = authentic.Checks[:9]
	key := newKey(t)
	for _, tt := range []struct {
		name   string
		result verifier.Result
		status string
		vector map[string]int
	}{
		{"good", good(), "affirming", map[string]int{"instance-identity": 2, "hardware": 2, "executables": 3, "configuration": 2, "runtime-opaque": 2}},
		{"SIMULATED", simulated, "contraindicated", map[string]int{"instance-identity": 2, "hardware": 97, "executables": 3, "configuration": 2, "runtime-opaque": 2}},
		{"measurement left out", with(verifier.CodeMeasurement, verifier.Skipped, verifier.Verified), "warning", map[string]int{"instance-identity": 2, "hardware": 2, "executables": 33, "configuration": 2, "runtime-opaque": 2}},
		{"freshness left out", with(verifier.CodeReportData, verifier.Skipped, verifier.Verified), "warning", map[string]int{"instance-identity": 2, "hardware": 2, "executables": 3, "configuration": 2, "runtime-opaque": 2}},
		{"DEBUG", with(verifier.CodeDebug, verifier.Fail, verifier.Mismatch), "contraindicated", map[string]int{"instance-identity": 2, "hardware": 2, "executables": 3, "configuration": 2, "runtime-opaque": 96}},
		{"replayed", with(verifier.CodeNonce, verifier.Fail, verifier.Mismatch), "contraindicated", map[string]int{"instance-identity": 2, "hardware": 2, "executables": 3, "configuration": 2, "runtime-opaque": 2}},
		{"forged", with(verifier.CodeSignature, verifier.Fail, verifier.Forged), "contraindicated", map[string]int{"instance-identity": 99, "hardware": 99, "executables": 99, "configuration": 99, "runtime-opaque": 99}},
		{"undecided", with(verifier.CodeCRL, verifier.Fail, verifier.Unavailable), "none", map[string]int{"instance-identity": 0, "hardware": 0, "executables": 0, "configuration": 0, "runtime-opaque": 0}},
		{"authenticity alone", authentic, "warning", map[string]int{"instance-identity": 2, "hardware": 0, "executables": 0, "configuration": 0, "runtime-opaque": 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			by := render.Issuer{Key: key, Developer: "us", Build: "1", PolicyID: "policy", IssuedAt: at}
			if err := render.EAR(&b, []verifier.Result{tt.result}, by); err != nil {
				t.Fatal(err)
			}
			got, ok := open(b.String(), &key.PublicKey)
			if !ok {
				t.Fatal("the signature does not hold")
			}
			one := got.Submods["AMD-SEV-SNP"]
			if got.Profile != "tag:ietf.org,2026:rats/ear#04" || got.IAT != at.Unix() || got.Status != tt.status || one.Status != tt.status || got.Verifier.Developer != "us" || len(one.Policies) != 1 {
				t.Errorf("%+v, want status %s", got, tt.status)
			}
			if diff := cmp.Diff(tt.vector, one.Vector); diff != "" {
				t.Errorf("vector (-want +got):\n%s", diff)
			}
			changed := bytes.Replace(b.Bytes(), []byte(".e"), []byte(".f"), 1)
			if _, ok := open(string(changed), &key.PublicKey); ok {
				t.Error("a changed token holds")
			}
			if _, ok := open(b.String(), &newKey(t).PublicKey); ok {
				t.Error("it holds under another key")
			}
		})
	}
}

func TestEARKeys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key crypto.Signer
		alg string
	}{{newKey(t), "ES256"}, {p384, "ES384"}, {ed, "EdDSA"}, {r, "PS256"}, {p224, ""}, {nil, ""}} {
		var b bytes.Buffer
		err := render.EAR(&b, []verifier.Result{good()}, render.Issuer{Key: tt.key, IssuedAt: at})
		header, _ := base64.RawURLEncoding.DecodeString(strings.Split(b.String(), ".")[0])
		if (err == nil) != (tt.alg != "") || tt.alg != "" && !strings.Contains(string(header), `"`+tt.alg+`"`) || tt.alg == "" && b.Len() > 0 {
			t.Errorf("%T: header %s, error %v, want %q", tt.key, header, err, tt.alg)
		}
	}
}
