package verifier_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/kraudcloud/kattest/verifier"
)

// certificateFamilies are leaves in a report's table that are wrong, each in
// one thing.
func certificateFamilies(l *lab) []family {
	var all []family
	for _, m := range l.layouts() {
		f := certificates{lab: l, machine: m, twin: attempt{data: l.withTable(m), policy: l.tablePolicy(m)}}
		all = append(all, f.encodings(), f.extensionValues(), f.missing(), f.others(), f.names(), f.signatures(), f.dates())
	}
	return all
}

// tablePolicy is policy without a certificate: that of the table is judged.
func (l *lab) tablePolicy(m machine) verifier.Policy {
	p := l.policy(m)
	p.VCEK = nil
	return p
}

// certificates makes families of certificates that come with a report.
type certificates struct {
	*lab
	machine
	twin  attempt
	cases []hostile
}

func (f certificates) family(name string) family {
	return family{name: f.String() + "/" + name, twin: f.twin, cases: f.cases}
}

// offer adds a report with a table.
func (f *certificates) offer(name string, v verifier.Verdict, code verifier.Code, entries ...verifier.CertificateEntry) {
	h := hostile{name: name, attempt: f.twin, verdict: v, code: code}
	h.data = append(f.report(f.machine), table(entries...)...)
	f.cases = append(f.cases, h)
}

// raw adds a leaf, as it is encoded.
func (f *certificates) raw(name string, der []byte, code verifier.Code) {
	v := verifier.Forged
	if code == verifier.CodeCSPID {
		v = verifier.Mismatch
	}
	f.offer(name, v, code, verifier.CertificateEntry{GUID: f.slot(), Data: der})
}

// changed adds a leaf that was changed before it was signed.
func (f *certificates) changed(name string, code verifier.Code, change func(*x509.Certificate)) {
	f.raw(name, f.leaf(f.machine, change).Raw, code)
}

// put returns a change that gives one of AMD's extensions another value.
func put(name string, value []byte) func(*x509.Certificate) {
	return func(t *x509.Certificate) {
		i := slices.IndexFunc(t.ExtraExtensions, func(e pkix.Extension) bool { return e.Id.Equal(oid(name)) })
		if i < 0 {
			t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: oid(name), Value: value})
			return
		}
		t.ExtraExtensions[i].Value = value
	}
}

// encodings are certificates whose DER is not what it should be.
func (f certificates) encodings() family {
	good := f.leaf(f.machine).Raw
	f.raw("empty", nil, verifier.CodeForm)
	f.raw("trailing byte", append(bytes.Clone(good), 0), verifier.CodeForm)
	f.raw("twice", append(bytes.Clone(good), good...), verifier.CodeForm)
	f.raw("in PEM", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good}), verifier.CodeForm)
	f.raw("zeros", make([]byte, len(good)), verifier.CodeForm)
	f.raw("of endless length", []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, verifier.CodeForm)
	f.raw("nested without end", bytes.Repeat([]byte{0x30, 0x80}, 8192), verifier.CodeForm)
	for n := 1; n < len(good); n += 101 {
		f.raw(fmt.Sprintf("%d bytes", n), good[:n], verifier.CodeForm)
	}
	for _, at := range []int{0, 1, 4, 5} { // the outermost headers
		flipped := bytes.Clone(good)
		flipped[at] ^= 1
		f.raw(fmt.Sprintf("byte %d flipped", at), flipped, verifier.CodeForm)
	}
	for at := len(good) - 512; at < len(good); at += 32 {
		flipped := bytes.Clone(good)
		flipped[at] ^= 1
		f.raw(fmt.Sprintf("byte %d of the signature flipped", at), flipped, verifier.CodeChain)
	}
	return f.family("encoding")
}

// extensionValues are values of AMD's extensions that are none, or not the
// report's.
func (f certificates) extensionValues() family {
	levels := []string{"3.1", "3.2", "3.3", "3.8"}
	if f.product == verifier.Turin {
		levels = append(levels, "3.9")
	}
	for _, level := range levels {
		for name, value := range map[string]any{
			"-1": -1, "-255": -255, "256": 256, "2^31": 1 << 31, "2^63": new(big.Int).Lsh(big.NewInt(1), 63), "2^256": new(big.Int).Lsh(big.NewInt(1), 256),
			"text": ia5("1"), "true": true, "a list": []int{1},
		} {
			f.changed(level+" "+name, verifier.CodeForm, put(level, f.der(value)))
		}
		for name, der := range map[string][]byte{
			"nothing": {}, "bare": {4}, "trailing": {2, 1, 4, 0}, "padded": {2, 2, 0, 4}, "empty integer": {2, 0}, "cut off": {2, 2, 4}, "octets": {4, 3, 2, 1, 4},
		} {
			f.changed(level+" "+name, verifier.CodeForm, put(level, der))
		}
		f.changed(level+" another", verifier.CodeCertTCB, put(level, f.der(99)))
		f.changed(level+" 0", verifier.CodeCertTCB, put(level, f.der(0)))
		f.changed(level+" 255", verifier.CodeCertTCB, put(level, f.der(255)))
	}
	for _, level := range []string{"3.4", "3.5", "3.6", "3.7"} {
		f.changed("reserved "+level, verifier.CodeForm, put(level, f.der(1)))
	}
	if f.product != verifier.Turin {
		f.changed("FMC", verifier.CodeForm, put("3.9", f.der(1)))
	}
	for name, value := range map[string]any{
		"unknown": ia5("Zen-9"), "empty": ia5(""), "of UTF-8": f.product.String(), "in lower case": ia5("milan"), "with a NUL": ia5(f.product.String() + "\x00"), "a number": 1,
		"with a suffix": ia5(f.product.String() + "2"),
	} {
		f.changed("product "+name, verifier.CodeForm, put("2", f.der(value)))
	}
	for name, value := range map[string]any{"2": 2, "-1": -1, "text": ia5("0")} {
		f.changed("structure "+name, verifier.CodeForm, put("1", f.der(value)))
	}
	if f.key == verifier.VLEK {
		f.changed("another provider", verifier.CodeCSPID, put("5", f.der(ia5("other.example"))))
		f.changed("no provider", verifier.CodeForm, put("5", f.der(ia5(""))))
		f.changed("a provider with a line break", verifier.CodeForm, put("5", f.der(ia5(labCSPID+"\n"))))
		f.changed("a provider of many bytes", verifier.CodeForm, put("5", f.der(ia5(strings.Repeat("A", 50<<10)))))
		f.changed("a provider longer by one", verifier.CodeCSPID, put("5", f.der(ia5(labCSPID+"."))))
		f.changed("a chip", verifier.CodeForm, put("4", bytes.Repeat([]byte{1}, 64)))
		return f.family("value")
	}
	id := f.chip()
	for at := range f.product.HWIDSize() {
		other := id
		other[at] ^= 1
		f.changed(fmt.Sprintf("another chip by byte %d", at), verifier.CodeChipID, put("4", other[:f.product.HWIDSize()]))
	}
	for _, n := range []int{0, 7, 8, 9, 32, 63, 64, 65} {
		if n != f.product.HWIDSize() {
			f.changed(fmt.Sprintf("HWID of %d bytes", n), verifier.CodeForm, put("4", bytes.Repeat([]byte{0xc1}, n)))
		}
	}
	f.changed("HWID of zeros", verifier.CodeForm, put("4", make([]byte, f.product.HWIDSize())))
	f.changed("a provider", verifier.CodeForm, put("5", f.der(ia5(labCSPID))))
	return f.family("value")
}

// missing leaves extensions out, doubles them, and adds some.
func (f certificates) missing() family {
	for i, e := range f.extensions(f.lab) {
		f.changed(fmt.Sprint("without ", e.Id), verifier.CodeForm, func(t *x509.Certificate) {
			t.ExtraExtensions = slices.Delete(t.ExtraExtensions, i, i+1)
		})
		f.raw(fmt.Sprint("twice ", e.Id), f.unparsed(func(t *x509.Certificate) { t.ExtraExtensions = append(t.ExtraExtensions, e) }), verifier.CodeForm)
		f.changed(fmt.Sprint("empty ", e.Id), verifier.CodeForm, func(t *x509.Certificate) { t.ExtraExtensions[i].Value = nil })
	}
	f.changed("a long one", verifier.CodeForm, put("3.8", make([]byte, 40<<10)))
	f.changed("an identifier of many arcs", verifier.CodeForm, put("3.8"+strings.Repeat(".1", 20<<10), []byte{5, 0}))
	f.changed("without any", verifier.CodeForm, func(t *x509.Certificate) { t.ExtraExtensions = nil })
	for _, critical := range []bool{false, true} {
		add := func(id asn1.ObjectIdentifier) func(*x509.Certificate) {
			return func(t *x509.Certificate) {
				t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: []byte{2, 1, 0}})
			}
		}
		f.changed(fmt.Sprint("an unknown one of AMD's, critical ", critical), verifier.CodeForm, add(oid("3.10")))
		f.changed(fmt.Sprint("an unknown one, critical ", critical), verifier.CodeForm, add(asn1.ObjectIdentifier{1, 2, 3, 4}))
	}
	f.changed("CA", verifier.CodeForm, func(t *x509.Certificate) { t.IsCA, t.BasicConstraintsValid = true, true })
	f.changed("no CA, explicitly", verifier.CodeForm, func(t *x509.Certificate) { t.BasicConstraintsValid = true })
	f.changed("may sign certificates", verifier.CodeForm, func(t *x509.Certificate) { t.KeyUsage = x509.KeyUsageCertSign })
	f.changed("a server's name", verifier.CodeForm, func(t *x509.Certificate) { t.DNSNames = []string{"example.com"} })
	return f.family("extension")
}

// unparsed is a leaf that crypto/x509 does not read.
func (f certificates) unparsed(change func(*x509.Certificate)) []byte {
	t := f.leafTemplate(f.machine)
	change(t)
	parent, key := f.above(f.machine)
	return f.certify(t, parent, f.private(f.leafKey(f.machine)).Public(), key)
}

// others are certificates that are right, in another place.
func (f certificates) others() family {
	other := f.machine
	other.key = map[verifier.SigningKey]verifier.SigningKey{verifier.VCEK: verifier.VLEK, verifier.VLEK: verifier.VCEK}[f.key]
	f.raw("of the other kind of key", f.leaf(other).Raw, verifier.CodeKey)
	f.offer("of the other kind of key, in its slot", verifier.Forged, verifier.CodeKey, verifier.CertificateEntry{GUID: other.slot(), Data: f.leaf(other).Raw})
	for _, p := range verifier.Products() {
		if p == f.product {
			continue
		}
		code := verifier.CodeProduct
		if f.version == 2 {
			code = verifier.CodeCertTCB // the certificate alone names the product
		}
		elsewhere := f.machine
		elsewhere.product = p
		f.raw("of "+p.String(), f.leaf(elsewhere).Raw, code)
	}
	ask, _ := f.above(f.machine)
	f.raw("the ASK", ask.Raw, verifier.CodeForm)
	f.raw("the ARK", f.ark(f.product).Raw, verifier.CodeForm)
	f.offer("none", verifier.Unavailable, verifier.CodeCertificate)
	f.offer("in the ASK's slot", verifier.Unavailable, verifier.CodeCertificate, verifier.CertificateEntry{GUID: slotASK, Data: f.leaf(f.machine).Raw})
	f.offer("in an unknown slot", verifier.Unavailable, verifier.CodeCertificate, verifier.CertificateEntry{GUID: verifier.GUID{1}, Data: f.leaf(f.machine).Raw})
	f.raw("another key's", f.issueLeaf("other").Raw, verifier.CodeSignature)
	f.raw("of P-256", f.issueLeaf("p256").Raw, verifier.CodeForm)
	f.raw("of RSA", f.issueLeaf("stranger").Raw, verifier.CodeForm)
	return f.family("other")
}

// issueLeaf is a leaf of another key.
func (f certificates) issueLeaf(public string) *x509.Certificate {
	parent, key := f.above(f.machine)
	return f.issue(f.leafTemplate(f.machine), parent, f.private(public).Public(), key)
}

func (f certificates) names() family {
	right := f.prefix + "SEV-" + f.key.String()
	for _, name := range []string{"", "SEV", right + " ", " " + right, right + "2", right + "\x00", "sev-vcek", f.prefix + "SEV-" + f.product.String(), asSimulated + asSimulated + "SEV-" + f.key.String()} {
		f.changed(fmt.Sprintf("subject %q", name), verifier.CodeForm, func(t *x509.Certificate) { t.Subject.CommonName = name })
	}
	parent, key := f.above(f.machine)
	long := *parent
	long.Subject.CommonName, long.RawSubject = strings.Repeat("A", 50<<10), nil
	f.raw("a long issuer", f.under(f.machine, &long, key).Raw, verifier.CodeChain)
	f.changed("a long subject", verifier.CodeForm, func(t *x509.Certificate) { t.Subject.CommonName = long.Subject.CommonName })
	lie := "SEV-" + f.key.String() // a simulation that says that it is none, or the other way round
	if f.prefix == "" {
		lie = asSimulated + lie
	}
	f.changed("subject "+lie, verifier.CodeChain, func(t *x509.Certificate) { t.Subject.CommonName = lie })
	return f.family("name")
}

// signatures are those of other algorithms and of other keys.
func (f certificates) signatures() family {
	for _, algorithm := range []x509.SignatureAlgorithm{x509.SHA256WithRSAPSS, x509.SHA512WithRSAPSS, x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA} {
		f.changed(algorithm.String(), verifier.CodeChain, func(t *x509.Certificate) { t.SignatureAlgorithm = algorithm })
	}
	parent, _ := f.above(f.machine)
	public := f.private(f.leafKey(f.machine)).Public()
	template := f.leafTemplate(f.machine)
	for _, key := range []string{"stranger", "weak", "ark"} {
		f.raw("by "+key, f.issue(template, parent, public, key).Raw, verifier.CodeChain)
	}
	f.raw("by the ARK", f.issue(template, f.ark(f.product), public, "ark").Raw, verifier.CodeChain)
	template.SignatureAlgorithm = x509.ECDSAWithSHA384
	f.raw("by itself", f.issue(template, template, public, f.leafKey(f.machine)).Raw, verifier.CodeChain)
	f.raw("by itself, in the ASK's name", f.issue(template, parent, public, f.leafKey(f.machine)).Raw, verifier.CodeChain)
	f.raw("by another leaf", f.issue(template, f.leaf(f.machine), public, "other").Raw, verifier.CodeChain)
	return f.family("signature of the certificate")
}

func (f certificates) dates() family {
	for name, change := range map[string]func(*x509.Certificate){
		"expired": func(t *x509.Certificate) { t.NotAfter = labTime.Add(-time.Second) },
		"not yet": func(t *x509.Certificate) { t.NotBefore = labTime.Add(time.Second) },
		"expired long since": func(t *x509.Certificate) {
			t.NotBefore, t.NotAfter = labTime.AddDate(-9, 0, 0), labTime.AddDate(-2, 0, 0)
		},
		"of the other end":    func(t *x509.Certificate) { t.NotBefore, t.NotAfter = t.NotAfter, t.NotBefore },
		"of the last century": func(t *x509.Certificate) { t.NotAfter = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		f.changed(name, verifier.CodeValidity, change)
	}
	return f.family("date")
}
