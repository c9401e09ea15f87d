package verifier_test

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/policyfile"
)

// genuineCRLs are the corpus' lists, all of them AMD's.
func genuineCRLs(t *testing.T) []*x509.RevocationList {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(corpus, "amd", "*.crl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Skipf("%s holds no *.crl: genuine lists are kept outside of the repository", filepath.Join(corpus, "amd"))
	}
	var all []*x509.RevocationList
	for _, name := range names {
		all = append(all, readCRL(t, filepath.Base(name)))
	}
	return all
}

// accepting is a policy that accepts a genuine report, with all that it says.
func (g genuine) accepting(t *testing.T) verifier.Policy {
	t.Helper()
	in := parse(t, g.report)
	e, err := verifier.ParseEndorsement(g.cert)
	if err != nil {
		t.Fatal(err)
	}
	p := g.policy(t)
	p.AuthenticityOnly, p.Products, p.CSPIDs = false, anyProduct(), []string{e.CSPID}
	p.References = []verifier.Reference{{Measurement: in.Report.Measurement}}
	p.ReportData, p.HostData, p.VMPL = &in.Report.ReportData, &in.Report.HostData, in.Report.VMPL
	p.WithoutDebug, p.WithoutCommitted = in.Report.Policy&verifier.PolicyDebug != 0, true
	return p
}

// Every genuine report, with a byte of every field changed, one of every range
// that is reserved, cut off, with another's certificate and with a table that is
// none, is refused, and the report itself is accepted.
func TestHostileCorpus(t *testing.T) {
	all, total := readCorpus(t), 0
	for i, g := range all {
		if testing.Short() && i%8 != 0 {
			continue // in haste, some will do
		}
		f := family{twin: attempt{data: g.report, policy: g.accepting(t)}}
		add := func(name string, data []byte, v verifier.Verdict, code verifier.Code) {
			f.cases = append(f.cases, hostile{name, attempt{data: data, policy: f.twin.policy}, v, code, false})
		}
		flip := func(at int, v verifier.Verdict, code verifier.Code) {
			b := bytes.Clone(g.report)
			b[at] ^= 1
			add(fmt.Sprintf("byte 0x%03x", at), b, v, code)
		}
		for _, at := range []int{
			0x004, 0x008, 0x010, 0x020, 0x038, 0x040, 0x050, 0x08f, 0x090, 0x0bf, 0x0c0, 0x0df, 0x0e0, 0x110, 0x13f, 0x140, 0x160, 0x180, 0x187,
			0x1a0, 0x1df, 0x1e0, 0x1e8, 0x1ec, 0x1f0, 0x1f7, 0x2a0, 0x2cf, 0x2e8, 0x317,
		} {
			flip(at, verifier.Forged, verifier.CodeSignature)
		}
		for _, s := range reservedIn(binary.LittleEndian.Uint32(g.report)) {
			flip(s.from, verifier.Malformed, verifier.CodeReserved)
			flip(s.to-1, verifier.Malformed, verifier.CodeReserved)
		}
		flip(0x034, verifier.Malformed, verifier.CodeAlgorithm)
		flip(0x04b, verifier.Malformed, verifier.CodeSigner)
		flip(0x033, verifier.Malformed, verifier.CodeLevel)
		flip(0x003, verifier.Malformed, verifier.CodeVersion)
		key := bytes.Clone(g.report)
		key[0x048] ^= 1 << 2
		add("the other kind of key", key, verifier.Forged, verifier.CodeKey)
		for n := range 8 {
			add(fmt.Sprintf("%d bytes", n*150), g.report[:n*150], verifier.Malformed, verifier.CodeSize)
			add(fmt.Sprintf("%d bytes behind", n+1), append(bytes.Clone(g.report), make([]byte, n+1)...), verifier.Malformed, verifier.CodeTable)
		}
		other := all[(i+1)%len(all)]
		for j := 2; bytes.Equal(other.cert, g.cert); j++ {
			other = all[(i+j)%len(all)]
		}
		add("another's certificate", g.report, verifier.Forged, verifier.CodeSignature)
		f.cases[len(f.cases)-1].policy.VCEK = other.policy(t).VCEK
		add("another's signature", append(bytes.Clone(g.report[:0x2a0]), other.report[0x2a0:]...), verifier.Forged, verifier.CodeSignature)
		for name, at := range map[string]int{"r": 0x2a0, "s": 0x2e8} {
			zero := bytes.Clone(g.report)
			clear(zero[at : at+48])
			add(name+" = 0", zero, verifier.Forged, verifier.CodeSignature)
		}
		total += len(f.cases)
		t.Run(g.name, func(t *testing.T) { f.run(t, verifier.New) })
	}
	t.Logf("%d damaged inputs", total)
}

// All genuine reports are judged as they deserve, by the policy that a user has
// who asks for none, on a day on which AMD's list for Milan is in date, those at
// hand for Genoa are stale, and there is none for Turin; and again where lists
// need not be there. What each deserves is read out of the
// corpus' index and the report's bytes, not out of what the verifier parses.
func TestGenuineVerdicts(t *testing.T) {
	all, lists := readCorpus(t), genuineCRLs(t)
	file, err := policyfile.Parse([]byte(policyfile.DefaultText), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []verifier.Revocation{verifier.RevocationRequired, verifier.RevocationIfAvailable} {
		p := file.Policy
		p.Time, p.CRLs, p.Revocation = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), lists, rule
		t.Run(rule.String(), func(t *testing.T) { judgeAll(t, all, p) })
	}
	if len(all) != 46 {
		t.Errorf("%d reports, want 46", len(all))
	}
}

func judgeAll(t *testing.T, all []genuine, strict verifier.Policy) {
	count := map[verifier.Verdict]int{}
	for _, g := range all {
		in := parse(t, g.report)
		p := strict
		p.VCEK = g.policy(t).VCEK
		p.References = []verifier.Reference{{Measurement: in.Report.Measurement}}
		p.ReportData, p.HostData = &in.Report.ReportData, &in.Report.HostData
		r := verify(t, in, p)
		count[r.Verdict]++
		t.Logf("%s %s %s version %s: %v %v", g.name, g.row["product"], g.row["signing_key"], g.row["version"], r.Verdict, failures(r))
		v, want := g.deserves(t, p.Time, p.Revocation)
		got := failures(r)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" || r.Verdict != v {
			t.Errorf("%s: verdict %v, want %v; failures (-want +got):\n%s", g.name, r.Verdict, v, diff)
		}
	}
	t.Logf("%d reports: %v", len(all), count)
	if strict.Revocation == verifier.RevocationIfAvailable && count[verifier.Verified] == 0 {
		t.Error("no genuine report is good enough")
	}
}

// deserves returns the verdict of a genuine report on a day, and what fails, in
// alphabetical order.
func (g genuine) deserves(t *testing.T, day time.Time, rule verifier.Revocation) (verifier.Verdict, []verifier.Code) {
	t.Helper()
	var codes []verifier.Code
	fails := func(code verifier.Code, wrong bool) bool {
		if wrong {
			codes = append(codes, code)
		}
		return wrong
	}
	from, until, _ := strings.Cut(g.row["cert_valid"], "..")
	expired := fails(verifier.CodeValidity, day.Format(time.DateOnly) < from || day.Format(time.DateOnly) > until)
	unlisted := fails(verifier.CodeCRL, rule == verifier.RevocationRequired && g.row["product"] != "Milan")
	signed := len(codes)
	policy, platform := g.report[0x008:], g.report[0x040:]
	fails(verifier.CodeVMPL, g.row["vmpl"] != "0")
	fails(verifier.CodeDebug, policy[2]&8 != 0)
	fails(verifier.CodeCSPID, g.row["signing_key"] == "VLEK")
	fails(verifier.CodePlatform, platform[0]&0x20 == 0)
	fails(verifier.CodeProvisional, g.row["committed_tcb"] != g.row["current_tcb"] || !bytes.Equal(g.report[0x1e8:0x1eb], g.report[0x1ec:0x1ef]))
	launch := bytes.Clone(g.report[0x1f0:0x1f8])
	slices.Reverse(launch)
	fails(verifier.CodeReportedTCB, g.below(t, g.row["reported_tcb"]))
	fails(verifier.CodeCommittedTCB, g.below(t, g.row["committed_tcb"]))
	fails(verifier.CodeLaunchTCB, g.below(t, hex.EncodeToString(launch)))
	mismatch := len(codes) > signed
	slices.Sort(codes)
	switch {
	case expired:
		return verifier.Forged, codes
	case mismatch:
		return verifier.Mismatch, codes
	case unlisted:
		return verifier.Unavailable, codes
	default:
		return verifier.Verified, codes
	}
}

// below reports whether a TCB, in hexadecimal with the microcode first, is below
// what AMD asks for (AMD-SB-3030, see policyfile/default.yaml).
func (g genuine) below(t *testing.T, tcb string) bool {
	t.Helper()
	b, err := hex.DecodeString(tcb)
	if err != nil {
		t.Fatal(err)
	}
	switch g.row["product"] {
	case "Milan":
		return b[1] < 29 || b[0] < 68
	case "Genoa":
		return b[1] < 27 || b[0] < 25
	default:
		return b[4] < 4
	}
}

// Genuine lists under the roots that are compiled in: good while they are in
// date, and neither before nor after, nor with a byte changed.
func TestGenuineLists(t *testing.T) {
	lists := genuineCRLs(t)
	count := map[verifier.Verdict]int{}
	for _, g := range readCorpus(t) {
		in, p := parse(t, g.report), g.policy(t)
		p.Revocation = verifier.RevocationRequired
		for _, list := range lists {
			if list.Issuer.CommonName != "ARK-"+g.row["product"] {
				continue
			}
			changed := bytes.Clone(list.Raw)
			changed[len(changed)-1] ^= 1
			forged, err := verifier.ParseCRL(changed)
			if err != nil {
				t.Fatal(err)
			}
			start := list.ThisUpdate
			if p.VCEK.NotBefore.After(start) {
				start = p.VCEK.NotBefore
			}
			for _, tt := range []struct {
				name string
				at   time.Time
				list *x509.RevocationList
				want verifier.Verdict
			}{
				{"in date", start.Add(time.Hour), list, verifier.Authentic},
				{"on its last second", list.NextUpdate, list, verifier.Authentic},
				{"stale by a second", list.NextUpdate.Add(time.Second), list, verifier.Unavailable},
				{"of the future by a second", list.ThisUpdate.Add(-time.Second), list, verifier.Unavailable},
				{"changed", start.Add(time.Hour), forged, verifier.Unavailable},
			} {
				inDate := !tt.at.Before(list.ThisUpdate) && !tt.at.After(list.NextUpdate)
				if tt.at.Before(p.VCEK.NotBefore) || tt.at.After(p.VCEK.NotAfter) || inDate != (tt.want == verifier.Authentic || tt.list == forged) {
					continue // the certificate is not of that time
				}
				p.Time, p.CRLs = tt.at, []*x509.RevocationList{tt.list}
				r := verify(t, in, p)
				if got := failures(r); r.Verdict != tt.want || tt.want == verifier.Unavailable && (len(got) != 1 || got[0] != verifier.CodeCRL) {
					t.Errorf("%s, a list that is %s: %v, failures %v", g.name, tt.name, r.Verdict, got)
				}
				count[tt.want]++
			}
		}
	}
	t.Logf("verdicts: %v", count)
	if count[verifier.Authentic] == 0 || count[verifier.Unavailable] == 0 {
		t.Error("a verdict was not reached")
	}
}

// An ASK that AMD revoked is offered with genuine reports. AMD's ARK signed it,
// and AMD's lists name it; but no report of the corpus has a leaf that it signed,
// so that it changes nothing here. That a leaf under such an ASK is refused is
// shown with the lab's (TestHostile/revocation).
func TestGenuineRevokedASK(t *testing.T) {
	name := filepath.Join(corpus, "amd", "revoked_ask_genoa_020001.der")
	der, err := os.ReadFile(name)
	if err != nil {
		t.Skipf("a genuine ASK that was revoked is missing: %v", err)
	}
	ask, err := verifier.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := ask.CheckSignatureFrom(pinnedChain(t, verifier.Genoa, verifier.VCEK)[1]); err != nil {
		t.Errorf("not AMD's: %v", err)
	}
	naming := 0
	for _, list := range genuineCRLs(t) {
		if slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(ask.SerialNumber) == 0 }) {
			naming++
		}
	}
	if naming != 2 {
		t.Errorf("%d lists name it, want 2", naming)
	}
	for _, g := range readCorpus(t) {
		if g.row["product"] != "Genoa" {
			continue
		}
		p := g.policy(t)
		if p.VCEK.CheckSignatureFrom(ask) == nil {
			t.Errorf("%s: its leaf is signed by the revoked ASK", g.name)
		}
		p.Chain = []*x509.Certificate{ask}
		in := parse(t, append(bytes.Clone(g.report), table(verifier.CertificateEntry{GUID: slotASK, Data: der})...))
		if r := verify(t, in, p); r.Verdict != verifier.Authentic {
			t.Errorf("%s: %v, failures %v", g.name, r.Verdict, failures(r))
		}
		// In the leaf's slot it is no leaf.
		p.VCEK = nil
		in = parse(t, append(bytes.Clone(g.report), table(verifier.CertificateEntry{GUID: slotVCEK, Data: der})...))
		if r := verify(t, in, p); r.Verdict != verifier.Forged || failures(r)[0] != verifier.CodeForm {
			t.Errorf("%s: %v, failures %v", g.name, r.Verdict, failures(r))
		}
	}
}
