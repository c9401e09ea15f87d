package verifier_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/verifier"
)

// fuzzed is the machine that the fuzz targets' seeds are of.
var fuzzed = machine{verifier.Milan, verifier.VCEK, 5}

// Whatever is judged, what is accepted says what the genuine bytes say. A
// signature (r, s) has a second form (r, n-s), which holds as well: accepted, as
// it is about the same bytes. Nothing that is judged may rest on there being one.
func FuzzJudge(f *testing.F) {
	l := newLab(f, asSimulated)
	bare, answer := l.withTable(fuzzed), l.evidence(fuzzed)
	policies := []verifier.Policy{l.policy(fuzzed), l.evidencePolicy(fuzzed)}
	policies[0].VCEK = nil
	v := verifier.New(nil)
	for i, seed := range [][]byte{bare, answer} {
		if r, err := v.Judge(f.Context(), "", seed, policies[i]); err != nil || r.Verdict != verifier.Verified {
			f.Fatalf("the genuine input is refused: %v", err)
		}
		f.Add(seed)
	}
	f.Add(malleated(bare))
	f.Add(bare[:verifier.ReportSize])
	for _, m := range machines() {
		f.Add(l.withTable(m))
	}
	l.seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range policies {
			r, err := v.Judge(t.Context(), "", data, p)
			if _, ok := errors.AsType[*verifier.Refusal](err); (err == nil) != (r.Verdict == verifier.Verified) || err != nil && !ok {
				t.Fatalf("verdict %v with error %v", r.Verdict, err)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Fatal(err)
			}
			if err == nil && !saysTheSame(parse(t, data), p.Nonce != nil) {
				t.Fatal("accepted, and does not say what the lab's guest says")
			}
		}
	})
}

// seed adds hostile inputs of every kind that is not about a certificate.
func (l *lab) seed(f *testing.F) {
	r := reports{lab: l, machine: fuzzed, twin: attempt{data: l.report(fuzzed)}}
	for _, family := range append(inputFamilies(l), r.scalars(), r.signers(), r.sizes()) {
		for i, h := range family.cases {
			if i%8 == 0 && len(h.data) < 16<<10 { // large ones are slow to change
				f.Add(h.data)
			}
		}
	}
}

// saysTheSame reports whether an input is the lab's, up to its certificate
// table, its form, and (r, n-s).
func saysTheSame(in verifier.Input, answer bool) bool {
	want := fuzzed.unsigned()
	if answer {
		e := evidence.Evidence{Nonce: labNonce, PublicKey: labTLSKey, Exporter: labExport, Events: labEvents}
		if in.Evidence == nil || !cmp.Equal(in.Evidence.Events, labEvents) || !bytes.Equal(in.Evidence.Nonce, labNonce) || !bytes.Equal(in.Evidence.PublicKey, labTLSKey) || !bytes.Equal(in.Evidence.Exporter, labExport) {
			return false
		}
		bound := e.ReportData()
		copy(want[0x050:], bound[:])
	}
	got := in.Report.Bytes()
	return bytes.Equal(want[:0x2a0], got[:0x2a0])
}

// malleated returns a report with n-s in the place of s.
func malleated(report []byte) []byte {
	b := bytes.Clone(report)
	be := bytes.Clone(b[0x2e8:0x330])
	slices.Reverse(be)
	s := new(big.Int).Sub(elliptic.P384().Params().N, new(big.Int).SetBytes(be))
	r := bytes.Clone(b[0x2a0:0x2e8])
	slices.Reverse(r)
	putScalars(b, new(big.Int).SetBytes(r), s)
	return b
}

func FuzzParseInput(f *testing.F) {
	l := newLab(f, asSimulated)
	f.Add(l.withTable(fuzzed))
	f.Add(l.evidence(fuzzed))
	f.Add([]byte(" {\"mediaType\":\"" + evidence.TPMMediaType + "\"}"))
	l.seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := verifier.ParseInput(data)
		if err != nil {
			if _, ok := errors.AsType[*verifier.MalformedError](err); !ok {
				t.Errorf("an error of another type: %v", err)
			}
			if in.Report != (verifier.Report{}) || in.Certificates.Bytes() != nil || in.Certificates.Entries != nil || in.Evidence != nil || in.TPM != nil {
				t.Error("an error with an input")
			}
			return
		}
		report := in.Report.Bytes()
		if in.Evidence == nil && in.TPM == nil && !bytes.Equal(append(report[:], in.Certificates.Bytes()...), data) {
			t.Error("does not re-encode to itself")
		}
		if e := in.Evidence; e != nil {
			if !bytes.Equal(e.Report, report[:]) || !bytes.Equal(e.Certificates, in.Certificates.Bytes()) {
				t.Error("the report that is judged is not that of the evidence")
			}
		}
	})
}

func FuzzParseCertificate(f *testing.F) {
	l := newLab(f, asSimulated)
	for _, m := range machines() {
		cert := l.leaf(m)
		f.Add(cert.Raw)
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, err := verifier.ParseCertificate(data)
		if (cert == nil) != (err != nil) {
			t.Fatalf("certificate %v with error %v", cert != nil, err)
		}
		if err != nil {
			if e, err := verifier.ParseEndorsement(data); err == nil {
				t.Errorf("no certificate, and yet it is %v", e.Key)
			}
			return
		}
		if again, err := verifier.ParseCertificate(cert.Raw); err != nil || !again.Equal(cert) {
			t.Errorf("does not re-encode to itself: %v", err)
		}
		e, err := verifier.ParseEndorsement(cert.Raw)
		if diff := cmp.Diff(verifier.Endorsement{}, e); err != nil && diff != "" {
			t.Errorf("an error with an endorsement:\n%s", diff)
		}
		if err == nil && (e.Product == verifier.UnknownProduct || (len(e.HWID) > 0) != (e.Key == verifier.VCEK) || (e.CSPID != "") != (e.Key == verifier.VLEK)) {
			t.Errorf("is not whole: %+v", e)
		}
	})
}

func FuzzParseSimulatedChain(f *testing.F) {
	l := newLab(f, asSimulated)
	chain := l.chain(fuzzed)
	text := func(c *verifier.SimulatedChain) []byte {
		var b []byte
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ASK.Raw})...)
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ARK.Raw})...)
		if c.CRL != nil {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: c.CRL.Raw})...)
		}
		return b
	}
	f.Add(text(chain))
	f.Add(text(&verifier.SimulatedChain{ASK: chain.ASK, ARK: chain.ARK}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := verifier.ParseSimulatedChain(data)
		if (c == nil) != (err != nil) {
			t.Fatalf("chain %v with error %v", c != nil, err)
		}
		if err != nil {
			return
		}
		again, err := verifier.ParseSimulatedChain(text(c))
		if err != nil || !again.ASK.Equal(c.ASK) || !again.ARK.Equal(c.ARK) || (again.CRL == nil) != (c.CRL == nil) || c.CRL != nil && !bytes.Equal(again.CRL.Raw, c.CRL.Raw) {
			t.Errorf("does not re-encode to itself: %v", err)
		}
	})
}

func FuzzParseCRL(f *testing.F) {
	l := newLab(f, "")
	list := l.crl(verifier.Milan)
	f.Add(list.Raw)
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list.Raw}))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := verifier.ParseCRL(data)
		if (list == nil) != (err != nil) {
			t.Fatalf("list %v with error %v", list != nil, err)
		}
		if err == nil && !bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) && !bytes.Equal(list.Raw, data) {
			t.Error("does not re-encode to itself")
		}
	})
}

func FuzzParseTCB(f *testing.F) {
	f.Add("bootloader=4,tee=0,snp=24,microcode=219")
	f.Add("fmc=1,snp=255")
	f.Add("snp=+1")
	f.Fuzz(func(t *testing.T, text string) {
		tcb, err := verifier.ParseTCB(text)
		if err != nil {
			if tcb != (verifier.TCB{}) {
				t.Error("an error with a TCB")
			}
			return
		}
		if again, err := verifier.ParseTCB(tcb.String()); err != nil || again != tcb {
			t.Errorf("%v is read as %v, %v", tcb, again, err)
		}
	})
}
