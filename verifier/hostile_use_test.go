package verifier_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/verifier"
)

// (r, n-s) is as good a signature as (r, s), and anyone can make it of the
// other. It is accepted: FIPS 186-5 does, AMD's firmware does not promise the
// lower of the two, and it says nothing else than what the processor signed. So
// a report's bytes, or the hash of them, do not say that it was not seen before;
// the nonce does.
func TestMalleatedSignature(t *testing.T) {
	for _, prefix := range []string{"", asSimulated} {
		l := newLab(t, prefix)
		for _, m := range l.machines() {
			report := l.report(m)
			other := malleated(report)
			if string(report) == string(other) {
				t.Fatal("nothing was changed")
			}
			if r, err := l.verifier(nil).Judge(t.Context(), "", other, l.policy(m)); err != nil || r.Verdict != verifier.Verified {
				t.Errorf("%v: %v", m, err)
			}
		}
	}
}

// A version that is read and of which there is no genuine report.
func TestVersion4(t *testing.T) {
	l, m := newLab(t, ""), machine{verifier.Genoa, verifier.VCEK, 4}
	if _, err := l.verifier(nil).Judge(t.Context(), "", l.report(m), l.policy(m)); err != nil {
		t.Error(err)
	}
}

// What is about a good certificate in a table does not harm it: others before
// and behind it, of every kind, and its GUID in both byte orders.
func TestTablesWithOthers(t *testing.T) {
	l := newLab(t, "")
	for _, m := range l.layouts() {
		good := verifier.CertificateEntry{GUID: m.slot(), Data: l.leaf(m).Raw}
		ask, _ := l.above(m)
		others := []verifier.CertificateEntry{
			{GUID: m.slot(), Data: []byte("garbage")},
			{GUID: m.slot()},
			{GUID: m.slot(), Data: l.leaf(m, put("3.8", l.der(1))).Raw},
			{GUID: m.slot(), Data: ask.Raw},
			{GUID: slotASK, Data: []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}},
			{GUID: verifier.GUID{0xff}, Data: []byte{1}},
		}
		swapped := good
		for i, j := range []int{3, 2, 1, 0, 5, 4, 7, 6} {
			swapped.GUID[i] = good.GUID[j]
		}
		for name, entries := range map[string][]verifier.CertificateEntry{
			"first": append([]verifier.CertificateEntry{good}, others...), "last": append(others[:len(others):len(others)], good),
			"in the other byte order": append(others[:len(others):len(others)], swapped),
		} {
			data := append(l.report(m), table(entries...)...)
			if _, err := l.verifier(nil).Judge(t.Context(), "", data, l.tablePolicy(m)); err != nil {
				t.Errorf("%v, %s: %v", m, name, err)
			}
		}
	}
}

// One Verifier judges everything at once as it judges it alone.
func TestConcurrentUse(t *testing.T) {
	var all []hostile
	pinned := newLab(t, "")
	for _, l := range []*lab{pinned, newLab(t, asSimulated)} {
		m := l.layouts()[0]
		f := demands{lab: l, machine: m, twin: attempt{data: l.report(m), policy: l.policy(m)}}
		c := certificates{lab: l, machine: m, twin: attempt{data: l.withTable(m), policy: l.tablePolicy(m)}}
		r := lists{lab: l, machine: m, twin: f.twin}
		for _, family := range []family{f.nothing(), c.signatures(), c.dates(), r.useless(), r.revoked()} {
			all = append(all, family.cases...)
			all = append(all, hostile{name: "the twin of " + family.name, attempt: family.twin, verdict: verifier.Verified})
		}
	}
	v := pinned.verifier(nil)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range all {
				h := all[(i*7+worker*len(all)/8)%len(all)]
				r, err := v.Judge(t.Context(), h.name, h.data, h.policy)
				if r.Verdict != h.verdict || (err == nil) != (h.verdict == verifier.Verified) {
					t.Errorf("%s: %v, want %v", h.name, r.Verdict, h.verdict)
				}
			}
		})
	}
	group.Wait()
}

// blocking answers one question when the context ends, and the others at once.
type blocking struct {
	source
	on string
}

func (b blocking) wait(ctx context.Context, question string) error {
	if b.on != question {
		return nil
	}
	<-ctx.Done()
	return fmt.Errorf("asking: %w", ctx.Err())
}

func (b blocking) VCEK(ctx context.Context, p verifier.Product, hwid []byte, tcb verifier.TCB) ([]byte, error) {
	if err := b.wait(ctx, "VCEK"); err != nil {
		return nil, err
	}
	return b.source.VCEK(ctx, p, hwid, tcb)
}

func (b blocking) Chain(ctx context.Context, p verifier.Product, key verifier.SigningKey) ([]byte, error) {
	if err := b.wait(ctx, "Chain"); err != nil {
		return nil, err
	}
	return b.source.Chain(ctx, p, key)
}

func (b blocking) CRL(ctx context.Context, p verifier.Product, key verifier.SigningKey) ([]byte, error) {
	if err := b.wait(ctx, "CRL"); err != nil {
		return nil, err
	}
	return b.source.CRL(ctx, p, key)
}

// A context that ends is an error, and no verdict.
func TestContextEnds(t *testing.T) {
	l := newLab(t, "")
	m := l.layouts()[0]
	ask := l.renewed(m)
	good := source{vcek: l.under(m, ask, "stranger").Raw, chain: inPEM(ask), crl: l.crl(m.product).Raw}
	p := l.tablePolicy(m)
	p.CRLs = nil
	in := parse(t, l.report(m))
	if _, err := l.verifier(good).Verify(t.Context(), in, p); err != nil {
		t.Fatalf("the twin: %v", err)
	}
	for _, question := range []string{"VCEK", "Chain", "CRL"} {
		t.Run(question, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			r, err := l.verifier(blocking{good, question}).Verify(ctx, in, p)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(verifier.Result{}, r); diff != "" {
				t.Errorf("an error with a result:\n%s", diff)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p = l.policy(m)
	if r, err := l.verifier(nil).Verify(ctx, in, p); !errors.Is(err, context.Canceled) || r.Verdict != 0 {
		t.Errorf("over before it began: %v, error %v", r.Verdict, err)
	}
	p.References = nil
	p.Compute = func(context.Context, verifier.Report) ([]verifier.Reference, error) {
		return nil, errors.New("no memory")
	}
	if r, err := l.verifier(nil).Verify(t.Context(), in, p); err == nil || !strings.Contains(err.Error(), "no memory") || r.Verdict != 0 {
		t.Errorf("computing fails: %v, error %v", r.Verdict, err)
	}
}

// Nothing of which the caller has said nothing is a success.
func TestZeroValues(t *testing.T) {
	l := newLab(t, "")
	m := l.layouts()[0]
	in, good := parse(t, l.report(m)), l.policy(m)
	var zero verifier.Verifier
	if r, err := zero.Verify(t.Context(), in, verifier.Policy{}); !errors.Is(err, verifier.ErrTime) || r.Verdict != 0 {
		t.Errorf("zero policy: %v, error %v", r.Verdict, err)
	}
	for name, p := range map[string]verifier.Policy{
		"a time alone":           {Time: labTime},
		"authenticity alone":     {Time: labTime, AuthenticityOnly: true},
		"everything left out":    {Time: labTime, WithoutMeasurement: true, WithoutNonce: true, WithoutHostData: true, WithoutVMPL: true, WithoutDebug: true, WithoutMigration: true, WithoutCommitted: true, WithoutCSPID: true, WithoutPCRs: true, Revocation: verifier.RevocationOff},
		"an empty certificate":   {Time: labTime, VCEK: &x509.Certificate{}, AuthenticityOnly: true},
		"an empty chain":         {Time: labTime, VCEK: good.VCEK, Simulated: &verifier.SimulatedChain{ASK: &x509.Certificate{}, ARK: &x509.Certificate{}}, AuthenticityOnly: true},
		"an empty list":          {Time: labTime, VCEK: good.VCEK, CRLs: []*x509.RevocationList{{}}, AuthenticityOnly: true},
		"another authority":      {Time: labTime, VCEK: good.VCEK, Revocation: verifier.RevocationOff, AuthenticityOnly: true},
		"another authority, too": {Time: labTime, VCEK: good.VCEK, Chain: []*x509.Certificate{{}}, Revocation: verifier.RevocationOff, AuthenticityOnly: true},
	} {
		for kind, in := range map[string]verifier.Input{"a report": in, "nothing": {}, "evidence of nothing": {Evidence: &evidence.Evidence{}}} {
			r, err := zero.Verify(t.Context(), in, p)
			if _, ok := errors.AsType[*verifier.Refusal](err); !ok || r.Verdict < verifier.Mismatch {
				t.Errorf("%s, %s: %v, error %v", name, kind, r.Verdict, err)
			}
		}
	}
	if r, err := l.verifier(nil).Verify(t.Context(), verifier.Input{}, good); err == nil || r.Verdict != verifier.Forged {
		t.Errorf("nothing under a good policy: %v, error %v", r.Verdict, err)
	}
	for name, change := range map[string]func(*verifier.Policy){
		"no rule":             func(p *verifier.Policy) { p.Revocation = 3 },
		"a rule below":        func(p *verifier.Policy) { p.Revocation = -1 },
		"half a chain":        func(p *verifier.Policy) { p.Simulated = &verifier.SimulatedChain{ARK: l.ark(m.product)} },
		"no certificate":      func(p *verifier.Policy) { p.Chain = make([]*x509.Certificate, 1) },
		"no revocation list":  func(p *verifier.Policy) { p.CRLs = append(p.CRLs, nil) },
		"the time of nothing": func(p *verifier.Policy) { p.Time = time.Time{} },
	} {
		p := good
		change(&p)
		r, err := l.verifier(nil).Judge(t.Context(), "", l.report(m), p)
		if _, ok := errors.AsType[*verifier.Refusal](err); err == nil || ok || r.Verdict != 0 {
			t.Errorf("%s: %v, error %v", name, r.Verdict, err)
		}
	}
	if b, err := json.Marshal(verifier.Result{}); err == nil {
		t.Errorf("the zero result is written as %s", b)
	}
	for _, s := range []fmt.Stringer{verifier.Verdict(0), verifier.Outcome(0), verifier.Class(0)} {
		if name := s.String(); name == "verified" || name == "authentic" || name == "pass" {
			t.Errorf("a zero value is %s", name)
		}
	}
}

// The form of JSON is found however it is written, and costs nothing.
func TestFormsOfJSON(t *testing.T) {
	escaped := strings.ReplaceAll(evidence.TPMMediaType, "/", `\/`)
	for _, tt := range []struct{ data, form string }{
		{`{"mediaType":"` + evidence.TPMMediaType + `"}`, verifier.FormTPM},
		{"\n{ \"mediaType\"\t:\r\n\"" + evidence.TPMMediaType + "\"", verifier.FormTPM},
		{`{"quote":null,"mediaType":"` + escaped + `"}`, verifier.FormTPM},
		{`{"mediaType":"` + evidence.MediaType + `"}`, verifier.FormEvidence},
		{`{"mediaType":7}`, verifier.FormEvidence},
		{`{"mediaType"`, verifier.FormEvidence},
		{`{"events":[{"name":"mediaType","value":"` + evidence.TPMMediaType + `"}]}`, verifier.FormEvidence},
		{`{"events":[{"name":"\"mediaType\":\"` + evidence.TPMMediaType + `\""}]}`, verifier.FormEvidence},
		{`{`, verifier.FormEvidence},
		{`["mediaType":"` + evidence.TPMMediaType + `"]`, verifier.FormReport},
	} {
		r, err := verifier.New(nil).Judge(t.Context(), "", []byte(tt.data), verifier.Policy{Time: labTime})
		if err == nil || r.Verdict != verifier.Malformed || r.Form != tt.form {
			t.Errorf("%s: form %s, want %s; verdict %v", tt.data, r.Form, tt.form, r.Verdict)
		}
	}
}
