package verifier_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/kraudcloud/kattest/verifier"
)

// source answers every question with the same bytes, or ErrNotFound, or err.
type source struct {
	vcek, chain, crl []byte
	err              error
}

func (s source) answer(data []byte) ([]byte, error) {
	if s.err != nil || data != nil {
		return data, s.err
	}
	return nil, verifier.ErrNotFound
}

func (s source) VCEK(context.Context, verifier.Product, []byte, verifier.TCB) ([]byte, error) {
	return s.answer(s.vcek)
}

func (s source) Chain(context.Context, verifier.Product, verifier.SigningKey) ([]byte, error) {
	return s.answer(s.chain)
}

func (s source) CRL(context.Context, verifier.Product, verifier.SigningKey) ([]byte, error) {
	return s.answer(s.crl)
}

func inPEM(certs ...*x509.Certificate) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

// revocationFamilies are lists that do not do, and lists that name what signed.
func revocationFamilies(l *lab) []family {
	var all []family
	for _, m := range l.layouts() {
		f := lists{lab: l, machine: m, twin: attempt{data: l.report(m), policy: l.policy(m)}}
		all = append(all, f.useless(), f.revoked())
		if l.prefix == "" {
			all = append(all, f.fetched())
		}
	}
	return all
}

// lists makes families of revocation lists.
type lists struct {
	*lab
	machine
	twin  attempt
	cases []hostile
}

func (f lists) family(name string) family {
	return family{name: f.String() + "/" + name, twin: f.twin, cases: f.cases}
}

// judged adds the twin with other lists.
func (f *lists) judged(name string, v verifier.Verdict, code verifier.Code, all ...*x509.RevocationList) {
	h := hostile{name, f.twin, v, code, true}
	h.policy.CRLs = all
	if s := h.policy.Simulated; s != nil {
		h.policy.Simulated = &verifier.SimulatedChain{ASK: s.ASK, ARK: s.ARK}
		if len(all) == 1 {
			h.policy.Simulated.CRL, h.policy.CRLs = all[0], nil
		}
	}
	f.cases = append(f.cases, h)
}

// uselessLists are lists that say nothing at the time of judgement.
func (f lists) uselessLists() map[string]*x509.RevocationList {
	other := verifier.Milan
	if f.product == other {
		other = verifier.Genoa
	}
	ask, key := f.above(f.machine)
	all := map[string]*x509.RevocationList{
		"stale":               f.crl(f.product, func(t *x509.RevocationList) { t.NextUpdate = labTime.Add(-time.Second) }),
		"of the future":       f.crl(f.product, func(t *x509.RevocationList) { t.ThisUpdate = labTime.Add(time.Second) }),
		"forged":              f.crlBy(f.ark(f.product), "stranger"),
		"of the ASK":          f.crlBy(ask, key),
		"in the ASK's name":   f.crlBy(ask, "ark"),
		"by the ASK":          f.crlBy(f.ark(f.product), key),
		"of another product":  f.crl(other),
		"without nextUpdate":  f.withoutNextUpdate(),
		"with a flipped bit":  f.damaged(),
		"of a critical kind":  f.crl(f.product, extended(asn1.ObjectIdentifier{1, 2, 3, 4})),
		"a delta":             f.crl(f.product, extended(asn1.ObjectIdentifier{2, 5, 29, 27})),
		"of some points":      f.crl(f.product, extended(asn1.ObjectIdentifier{2, 5, 29, 28})),
		"of a critical entry": f.crl(f.product, listed(99, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}})),
	}
	for _, a := range []x509.SignatureAlgorithm{x509.SHA256WithRSAPSS, x509.SHA512WithRSAPSS, x509.SHA256WithRSA, x509.SHA384WithRSA} {
		all[a.String()] = f.crl(f.product, func(t *x509.RevocationList) { t.SignatureAlgorithm = a })
	}
	return all
}

func extended(id asn1.ObjectIdentifier) func(*x509.RevocationList) {
	return func(t *x509.RevocationList) {
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: id, Critical: true, Value: []byte{2, 1, 1}})
	}
}

// listed is a change that puts a serial on a list.
func listed(serial int64, extensions ...pkix.Extension) func(*x509.RevocationList) {
	return func(t *x509.RevocationList) {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: big.NewInt(serial), RevocationTime: labTime.AddDate(0, -2, 0), ExtraExtensions: extensions,
		})
	}
}

func (f lists) useless() family {
	f.judged("none", verifier.Unavailable, verifier.CodeCRL)
	useless := f.uselessLists()
	for name, list := range useless {
		f.judged(name, verifier.Unavailable, verifier.CodeCRL, list)
	}
	f.judged("all of them", verifier.Unavailable, verifier.CodeCRL, slices.Collect(maps.Values(useless))...)
	return f.family("list")
}

// revoked are lists that name what is above the report: whatever is named on a
// list of the ARK's was revoked, be the list in date or not, and whatever the
// rule for lists that are missing.
func (f lists) revoked() family {
	ask, _ := f.above(f.machine)
	const leafSerial = 0x7eaf
	f.twin.policy.VCEK = f.leaf(f.machine, func(t *x509.Certificate) { t.SerialNumber = big.NewInt(leafSerial) })
	for name, serial := range map[string]int64{"the ASK": ask.SerialNumber.Int64(), "the leaf": leafSerial} {
		now := f.crl(f.product, listed(3), listed(serial), listed(4))
		f.judged(name, verifier.Forged, verifier.CodeRevocation, now)
		f.judged(name+" on one of two", verifier.Forged, verifier.CodeRevocation, f.crl(f.product), now)
		f.judged(name+" on the other", verifier.Forged, verifier.CodeRevocation, now, f.crl(f.product))
		stale := f.crl(f.product, listed(serial), func(t *x509.RevocationList) { t.NextUpdate = labTime.Add(-time.Hour) })
		future := f.crl(f.product, listed(serial), func(t *x509.RevocationList) { t.ThisUpdate = labTime.Add(time.Hour) })
		f.judged(name+" on a stale one", verifier.Forged, verifier.CodeRevocation, stale, f.crl(f.product))
		f.judged(name+" on a future one", verifier.Forged, verifier.CodeRevocation, future, f.crl(f.product))
		f.judged(name+" on a list without nextUpdate", verifier.Forged, verifier.CodeRevocation, f.withoutNextUpdate(listed(serial)), f.crl(f.product))
		f.judged(name+", lists not required", verifier.Forged, verifier.CodeRevocation, stale)
		last := &f.cases[len(f.cases)-1]
		last.policy.Revocation = verifier.RevocationIfAvailable
	}
	return f.family("revoked")
}

// fetched are a Source's lies and failures.
func (f lists) fetched() family {
	f.twin.policy.CRLs = nil
	f.twin.source = source{crl: f.crl(f.product).Raw}
	ask := func(name string, v verifier.Verdict, code verifier.Code, s source) {
		a := f.twin
		a.source = s
		f.cases = append(f.cases, hostile{name, a, v, code, true})
	}
	for name, list := range f.uselessLists() {
		ask("a list "+name, verifier.Unavailable, verifier.CodeCRL, source{crl: list.Raw})
	}
	home, _ := f.above(f.machine)
	ask("a list with the ASK", verifier.Forged, verifier.CodeRevocation, source{crl: f.crl(f.product, listed(home.SerialNumber.Int64())).Raw})
	ask("a stale list with the ASK", verifier.Forged, verifier.CodeRevocation, source{crl: f.crl(f.product, listed(home.SerialNumber.Int64()), func(t *x509.RevocationList) {
		t.NextUpdate = labTime.Add(-time.Second)
	}).Raw})
	f.cases[len(f.cases)-1].alone = false // no list is in date, as well
	good := f.crl(f.product).Raw
	for name, data := range map[string][]byte{
		"nothing": {}, "a certificate": home.Raw, "text": []byte("Too Many Requests"), "PEM": []byte("-----BEGIN X509 CRL-----\n"), "of another kind": inPEM(home),
		"trailing bytes": append(bytes.Clone(good), 0), "half a list": good[:len(good)/2], "too much": make([]byte, verifier.MaxCRL+1),
		"nested without end": bytes.Repeat([]byte{0x30, 0x80}, verifier.MaxCRL/2),
	} {
		ask("for a list, "+name, verifier.Unavailable, verifier.CodeCRL, source{crl: data})
	}
	ask("no list", verifier.Unavailable, verifier.CodeCRL, source{})
	ask("an error", verifier.Unavailable, verifier.CodeCRL, source{err: errors.New("the network\nis down")})
	if f.key == verifier.VLEK {
		return f.family("source")
	}
	vcek := func(name string, v verifier.Verdict, code verifier.Code, der []byte) {
		ask("for a VCEK, "+name, v, code, source{vcek: der, crl: good})
		f.cases[len(f.cases)-1].policy.VCEK = nil
	}
	vcek("nothing", verifier.Unavailable, verifier.CodeCertificate, nil)
	vcek("no bytes", verifier.Unavailable, verifier.CodeCertificate, []byte{})
	vcek("garbage", verifier.Unavailable, verifier.CodeCertificate, []byte("<html>Bad Gateway</html>"))
	vcek("PEM", verifier.Unavailable, verifier.CodeCertificate, inPEM(f.leaf(f.machine)))
	vcek("trailing bytes", verifier.Unavailable, verifier.CodeCertificate, append(f.leaf(f.machine).Raw, 0))
	vcek("the ASK", verifier.Unavailable, verifier.CodeCertificate, home.Raw)
	vcek("another chip's", verifier.Forged, verifier.CodeChipID, f.leaf(f.machine, put("4", bytes.Repeat([]byte{1}, f.product.HWIDSize()))).Raw)
	vcek("another TCB's", verifier.Forged, verifier.CodeCertTCB, f.leaf(f.machine, put("3.8", f.der(1))).Raw)
	vcek("another authority's", verifier.Forged, verifier.CodeChain, f.under(f.machine, home, "stranger").Raw)
	vcek("a VLEK", verifier.Forged, verifier.CodeKey, f.leaf(machine{f.product, verifier.VLEK, f.version}).Raw)
	f.cases[len(f.cases)-1].alone = false // it is not of a provider that is accepted, nor the key that signed
	return f.family("source")
}

// withoutNextUpdate is a list without the optional nextUpdate, which
// crypto/x509 does not make.
func (f lists) withoutNextUpdate(change ...func(*x509.RevocationList)) *x509.RevocationList {
	var list struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(f.crl(f.product, change...).Raw, &list); err != nil {
		f.Fatal(err)
	}
	var parts []asn1.RawValue
	if _, err := asn1.Unmarshal(list.TBS.FullBytes, &parts); err != nil {
		f.Fatal(err)
	}
	tbs := f.der(slices.Delete(parts, 4, 5)) // version, algorithm, issuer, thisUpdate, nextUpdate
	digest := sha512.Sum384(tbs)
	sig, err := f.private("ark").Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA384})
	if err != nil {
		f.Fatal(err)
	}
	list.TBS, list.Signature = asn1.RawValue{FullBytes: tbs}, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	parsed, err := verifier.ParseCRL(f.der(list))
	if err != nil {
		f.Fatal(err)
	}
	if !parsed.NextUpdate.IsZero() {
		f.Fatal("the list has a nextUpdate")
	}
	return parsed
}

// damaged is a list whose number was changed after it was signed.
func (f lists) damaged() *x509.RevocationList {
	raw := f.crl(f.product, func(t *x509.RevocationList) { t.Number = big.NewInt(0x123456789) }).Raw
	number := []byte{1, 0x23, 0x45, 0x67, 0x89}
	if !bytes.Contains(raw, number) {
		f.Fatal(fmt.Errorf("the list's number %x is not in it", number))
	}
	list, err := verifier.ParseCRL(bytes.Replace(raw, number, []byte{1, 0x23, 0x45, 0x67, 0x88}, 1))
	if err != nil {
		f.Fatal(err)
	}
	return list
}
