package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/verifier"
)

// authority is an ARK and an ASK of the test's own, which certify what a
// genuine authority never would.
type authority struct {
	ark, ask       *x509.Certificate
	arkKey, askKey *rsa.PrivateKey
}

func newAuthority(t *testing.T, prefix string) authority {
	t.Helper()
	var a authority
	for _, key := range []**rsa.PrivateKey{&a.arkKey, &a.askKey} {
		k, err := rsa.GenerateKey(rand.Reader, 4096)
		if err != nil {
			t.Fatal(err)
		}
		*key = k
	}
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: prefix + name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(name)}
	}
	ark := ca("ARK-Milan")
	a.ark = certify(t, ark, ark, a.arkKey.Public(), a.arkKey)
	a.ask = certify(t, ca("SEV-Milan"), a.ark, a.askKey.Public(), a.arkKey)
	return a
}

func (a authority) chain() []byte {
	var b []byte
	for _, c := range []*x509.Certificate{a.ask, a.ark} {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

// crl is a list of the ARK's that names serials.
func (a authority) crl(t *testing.T, from, until time.Time, serials ...int64) *x509.RevocationList {
	t.Helper()
	template := &x509.RevocationList{SignatureAlgorithm: x509.SHA384WithRSAPSS, Number: big.NewInt(1), ThisUpdate: from, NextUpdate: until}
	for _, n := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: from})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.ark, a.arkKey)
	if err != nil {
		t.Fatal(err)
	}
	list, err := verifier.ParseCRL(der)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func certify(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.SignatureAlgorithm = x509.SHA384WithRSAPSS
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// vcek certifies key as the VCEK of the chip and TCB that simpsp's reports
// have, after change.
func (a authority) vcek(t *testing.T, name string, key *ecdsa.PrivateKey, genuine *x509.Certificate, change func(id string, value []byte) []byte) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	for _, ext := range genuine.Extensions {
		id := ext.Id.String()
		if len(id) < 17 || id[:17] != "1.3.6.1.4.1.3704." {
			continue
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: ext.Id, Value: change(id, ext.Value)})
	}
	issuer := *a.ask
	issuer.SubjectKeyId = nil
	return certify(t, template, &issuer, key.Public(), a.askKey)
}

// resign signs a report with another key.
func resign(t *testing.T, report [port.ReportSize]byte, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	digest := sha512.Sum384(report[:0x2a0])
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []*big.Int{r, s} {
		le := n.FillBytes(make([]byte, 72))
		slices.Reverse(le)
		copy(report[0x2a0+72*i:], le)
	}
	return report[:]
}

// newForger returns a simulated processor and the certificate of its VCEK, and
// an authority of the tests' own with its chain, which certifies what it likes.
func newForger(t *testing.T) (psp *simpsp.PSP, genuine *x509.Certificate, mine authority, chain *verifier.SimulatedChain) {
	t.Helper()
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	if genuine, err = x509.ParseCertificate(psp.VCEK()); err != nil {
		t.Fatal(err)
	}
	mine = newAuthority(t, "SIMULATED-")
	if chain, err = verifier.ParseSimulatedChain(mine.chain()); err != nil {
		t.Fatal(err)
	}
	chain.CRL = mine.crl(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	return psp, genuine, mine, chain
}

// Certificates that are wrong in one thing, under a chain that is trusted.
func TestWrongCertificates(t *testing.T) {
	psp, genuine, mine, chain := newForger(t)
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	in := parse(t, resign(t, psp.Launch(measure.Digest{}, [32]byte{}, 0x30000).Report([64]byte{}, 0), key))
	same := func(_ string, value []byte) []byte { return value }
	change := func(id string, to any) func(string, []byte) []byte {
		return func(got string, value []byte) []byte {
			if got != "1.3.6.1.4.1.3704."+id {
				return value
			}
			if b, ok := to.([]byte); ok {
				return b
			}
			der, err := asn1.Marshal(to)
			if err != nil {
				t.Fatal(err)
			}
			return der
		}
	}
	const vcek = "SIMULATED-SEV-VCEK"
	for _, tt := range []struct {
		name  string
		cert  *x509.Certificate
		fails []verifier.Code
	}{
		{"right", mine.vcek(t, vcek, key, genuine, same), nil},
		{"TCB", mine.vcek(t, vcek, key, genuine, change("1.3.3", 23)), []verifier.Code{"certificate.tcb"}},
		{"chip", mine.vcek(t, vcek, key, genuine, change("1.4", bytes.Repeat([]byte{1}, 64))), []verifier.Code{"certificate.chip-id"}},
		{"product", mine.vcek(t, vcek, key, genuine, change("1.2", asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte("Genoa-B0")})), []verifier.Code{"certificate.product"}},
		{"unknown product", mine.vcek(t, vcek, key, genuine, change("1.2", asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte("Zen-9")})), []verifier.Code{"certificate.form"}},
		{"level out of range", mine.vcek(t, vcek, key, genuine, change("1.3.3", 256)), []verifier.Code{"certificate.form"}},
		{"AMD's name", mine.vcek(t, "SEV-VCEK", key, genuine, same), []verifier.Code{"certificate.chain"}},
		{"another name", mine.vcek(t, "SIMULATED-SEV-VLEK2", key, genuine, same), []verifier.Code{"certificate.form"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := verifier.Policy{Time: time.Now(), Simulated: chain, VCEK: tt.cert, AuthenticityOnly: true}
			if diff := cmp.Diff(tt.fails, failures(verify(t, in, p))); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("AMD's names without AMD's keys", func(t *testing.T) {
		forger := newAuthority(t, "")
		if _, err := verifier.ParseSimulatedChain(forger.chain()); err == nil {
			t.Error("a chain that does not say SIMULATED was taken")
		}
		p := verifier.Policy{Time: time.Now(), VCEK: forger.vcek(t, "SEV-VCEK", key, genuine, same), AuthenticityOnly: true, Revocation: verifier.RevocationOff}
		if r := verify(t, in, p); r.Verdict != verifier.Forged || r.With(verifier.Fail)[0].Code != verifier.CodeChain {
			t.Errorf("verdict %v, %v", r.Verdict, failures(r))
		}
	})
}

// A certificate is found whatever its slot is called, and in both byte orders
// of the GUIDs that are about.
func TestCertificateSlots(t *testing.T) {
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := verifier.ParseSimulatedChain(psp.Chain())
	if err != nil {
		t.Fatal(err)
	}
	guest := psp.Launch(measure.Digest{}, [32]byte{}, 0x30000)
	report := guest.Report([64]byte{}, 0)
	for _, tt := range []struct {
		name    string
		change  func(table []byte)
		verdict verifier.Verdict
	}{
		{"as text", func([]byte) {}, verifier.Authentic},
		{"as memory", func(b []byte) {
			for _, r := range [][2]int{{0, 4}, {4, 6}, {6, 8}} {
				slices.Reverse(b[r[0]:r[1]])
			}
		}, verifier.Authentic},
		// a8074bc2-a25a-483e-aae6-39c045a0b8a1, GHCB 2.03, table 7.
		{"in the VLEK's slot", func(b []byte) {
			copy(b, []byte{0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1})
		}, verifier.Authentic},
		{"in an unknown slot", func(b []byte) { b[3] ^= 1 }, verifier.Unavailable},
		{"damaged", func(b []byte) { b[bytes.Index(b, []byte{0x30, 0x82})] ^= 1 }, verifier.Forged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := guest.Certificates()
			tt.change(table)
			in := parse(t, append(bytes.Clone(report[:]), table...))
			p := verifier.Policy{Time: time.Now(), Simulated: chain, AuthenticityOnly: true}
			if r := verify(t, in, p); r.Verdict != tt.verdict {
				t.Errorf("verdict %v, want %v: %v", r.Verdict, tt.verdict, failures(r))
			}
		})
	}
}
