package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/verifier"
)

// lab is an authority and processors of the tests' own, which certify and sign
// what no genuine ones would. Its keys are kept in testdata/hostile, so that a
// fuzzer's finding stays one; nothing trusts them. They were made with
//
//	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096   # ark, ask, asvk, stranger; weak: 2048
//	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 # vcek, vlek, other; p256: P-256
type lab struct {
	testing.TB
	prefix string // of every subject: none, or SIMULATED-
	keys   map[string]crypto.Signer

	// What is right is made once.
	cas    map[string]*x509.Certificate
	leaves map[machine]*x509.Certificate
	crls   map[verifier.Product]*x509.RevocationList
}

func newLab(tb testing.TB, prefix string) *lab {
	return &lab{
		TB: tb, prefix: prefix, keys: map[string]crypto.Signer{}, cas: map[string]*x509.Certificate{},
		leaves: map[machine]*x509.Certificate{}, crls: map[verifier.Product]*x509.RevocationList{},
	}
}

const asSimulated = "SIMULATED-"

// machine is a kind of processor, of key and of report.
type machine struct {
	product verifier.Product
	key     verifier.SigningKey
	version uint32
}

func (m machine) String() string { return fmt.Sprintf("%v %v v%d", m.product, m.key, m.version) }

// machines are all that there are; a simulation has one.
func (l *lab) machines() []machine {
	if l.prefix == asSimulated || testing.Short() {
		return l.layouts()
	}
	return machines()
}

// layouts are machines of every layout, of reports, TCBs and certificates. They
// are for what takes long, and one alone if in haste.
func (l *lab) layouts() []machine {
	all := []machine{{verifier.Milan, verifier.VCEK, 2}, {verifier.Turin, verifier.VCEK, 5}, {verifier.Genoa, verifier.VLEK, 3}, {verifier.Turin, verifier.VLEK, 3}}
	if l.prefix == asSimulated || testing.Short() {
		return all[:1]
	}
	return all
}

// machines are all that there are. A report of version 2 does not name its
// product, and no Turin makes them.
func machines() []machine {
	var all []machine
	for _, p := range verifier.Products() {
		for _, key := range []verifier.SigningKey{verifier.VCEK, verifier.VLEK} {
			for _, version := range []uint32{2, 3, 5} {
				if version > 2 || p != verifier.Turin {
					all = append(all, machine{p, key, version})
				}
			}
		}
	}
	return all
}

// tcb is the machine's, in every place.
func (m machine) tcb() verifier.TCB {
	switch m.product {
	case verifier.Milan:
		return verifier.TCB{Bootloader: 4, TEE: 1, SNP: 29, Microcode: 222}
	case verifier.Genoa:
		return verifier.TCB{Bootloader: 10, TEE: 1, SNP: 23, Microcode: 84}
	default:
		return verifier.TCB{FMC: 1, Bootloader: 2, TEE: 1, SNP: 4, Microcode: 72}
	}
}

func (m machine) encode(t verifier.TCB) verifier.TCBVersion {
	if m.product == verifier.Turin {
		return verifier.TCBVersion{0: t.FMC, 1: t.Bootloader, 2: t.TEE, 3: t.SNP, 7: t.Microcode}
	}
	return verifier.TCBVersion{0: t.Bootloader, 1: t.TEE, 6: t.SNP, 7: t.Microcode}
}

// cpuid returns family, model and stepping.
func (m machine) cpuid() [3]byte {
	return map[verifier.Product][3]byte{verifier.Milan: {0x19, 0x01, 1}, verifier.Genoa: {0x19, 0x11, 1}, verifier.Turin: {0x1a, 0x02, 1}}[m.product]
}

// chip is its CHIP_ID: zero in a report that a VLEK signed.
func (m machine) chip() (id [64]byte) {
	if m.key == verifier.VCEK {
		copy(id[:m.product.HWIDSize()], bytes.Repeat([]byte{0xc1}, 64))
	}
	return id
}

// What the lab's guest is, and the provider whose VLEK it has.
var (
	labTime        = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	labMeasurement = measure.Digest(bytes.Repeat([]byte{0x4d}, 48))
	labHostData    = [32]byte(bytes.Repeat([]byte{0x4a}, 32))
	labReportData  = [64]byte(bytes.Repeat([]byte{0x4b}, 64))
	labIDKey       = [48]byte(bytes.Repeat([]byte{0x1d}, 48))
	labAuthorKey   = [48]byte(bytes.Repeat([]byte{0xa7}, 48))
	labFirmware    = verifier.FirmwareVersion{Major: 1, Minor: 55, Build: 29}
)

const (
	labCSPID       = "lab.example"
	labGuestPolicy = verifier.PolicyReserved1 | verifier.PolicySMT | 1<<8 | 0x37
	labPlatform    = verifier.PlatformSMT | verifier.PlatformECC | verifier.PlatformAliasCheck
	labMitigations = 0x5
)

// unsigned is a report of the machine's, for guest and host that are as they
// should be, but for its signature. Offsets: see verifier.ParseReport.
func (m machine) unsigned() []byte {
	b := make([]byte, verifier.ReportSize)
	le := binary.LittleEndian
	le.PutUint32(b[0x000:], m.version)
	le.PutUint32(b[0x004:], 7)
	le.PutUint64(b[0x008:], uint64(labGuestPolicy))
	b[0x010], b[0x020] = 1, 2
	le.PutUint32(b[0x034:], 1)
	le.PutUint64(b[0x040:], uint64(labPlatform))
	le.PutUint32(b[0x048:], uint32(m.key)<<2|1)
	copy(b[0x050:], labReportData[:])
	copy(b[0x090:], labMeasurement[:])
	copy(b[0x0c0:], labHostData[:])
	copy(b[0x0e0:], labIDKey[:])
	copy(b[0x110:], labAuthorKey[:])
	copy(b[0x140:], bytes.Repeat([]byte{0x1d}, 32))
	copy(b[0x160:], bytes.Repeat([]byte{0xff}, 32))
	for _, offset := range []int{0x038, 0x180, 0x1e0, 0x1f0} {
		tcb := m.encode(m.tcb())
		copy(b[offset:], tcb[:])
	}
	if id := m.cpuid(); m.version >= 3 {
		copy(b[0x188:], id[:])
	}
	id := m.chip()
	copy(b[0x1a0:], id[:])
	for _, offset := range []int{0x1e8, 0x1ec} {
		copy(b[offset:], []byte{labFirmware.Build, labFirmware.Minor, labFirmware.Major})
	}
	if m.version >= 5 {
		le.PutUint64(b[0x1f8:], labMitigations)
		le.PutUint64(b[0x200:], labMitigations)
	}
	return b
}

// report is the machine's, signed, after change.
func (l *lab) report(m machine, change ...func([]byte)) []byte {
	b := m.unsigned()
	for _, c := range change {
		c(b)
	}
	return l.sign(b, l.leafKey(m))
}

func (l *lab) leafKey(m machine) string {
	if m.key == verifier.VLEK {
		return "vlek"
	}
	return "vcek"
}

// sign signs a report, always with the same bytes (RFC 6979).
func (l *lab) sign(report []byte, key string) []byte {
	digest := sha512.Sum384(report[:0x2a0])
	der, err := l.private(key).(*ecdsa.PrivateKey).Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		l.Fatal(err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		l.Fatal(err)
	}
	putScalars(report, sig.R, sig.S)
	return report
}

func putScalars(report []byte, scalars ...*big.Int) {
	for i, n := range scalars {
		le := n.FillBytes(make([]byte, 72))
		slices.Reverse(le)
		copy(report[0x2a0+72*i:], le)
	}
}

func (l *lab) private(name string) crypto.Signer {
	if known := l.keys[name]; known != nil {
		return known
	}
	data, err := os.ReadFile(filepath.Join("testdata", "hostile", name+".key"))
	if err != nil {
		l.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		l.Fatalf("%s.key holds no key in PEM", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		l.Fatal(err)
	}
	l.keys[name] = key.(crypto.Signer)
	return l.keys[name]
}

// issue certifies a key. The parent's name and the signer need not go together.
func (l *lab) issue(template, parent *x509.Certificate, public crypto.PublicKey, signer string) *x509.Certificate {
	l.Helper()
	cert, err := x509.ParseCertificate(l.certify(template, parent, public, signer))
	if err != nil {
		l.Fatal(err)
	}
	return cert
}

func (l *lab) certify(template, parent *x509.Certificate, public crypto.PublicKey, signer string) []byte {
	l.Helper()
	issuer := *parent
	issuer.PublicKey, issuer.SubjectKeyId = nil, nil
	der, err := x509.CreateCertificate(rand.Reader, template, &issuer, public, l.private(signer))
	if err != nil {
		l.Fatal(err)
	}
	return der
}

func (l *lab) template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(0x1001), Subject: pkix.Name{CommonName: l.prefix + name}, SignatureAlgorithm: x509.SHA384WithRSAPSS,
		NotBefore: labTime.AddDate(0, -5, 0), NotAfter: labTime.AddDate(7, 0, 0),
	}
}

func (l *lab) caTemplate(name string) *x509.Certificate {
	t := l.template(name)
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	return t
}

// ca returns an authority, which is made once.
func (l *lab) ca(name, key string, parent *x509.Certificate, signer string) *x509.Certificate {
	if l.cas[name] == nil {
		t := l.caTemplate(name)
		if parent == nil {
			parent = t
		}
		l.cas[name] = l.issue(t, parent, l.private(key).Public(), signer)
	}
	return l.cas[name]
}

func (l *lab) ark(p verifier.Product) *x509.Certificate {
	return l.ca("ARK-"+p.String(), "ark", nil, "ark")
}

// above returns what stands above a machine's leaf, the ASK or the ASVK, and
// the name of its key.
func (l *lab) above(m machine) (ask *x509.Certificate, key string) {
	if m.key == verifier.VLEK {
		return l.ca("SEV-VLEK-"+m.product.String(), "asvk", l.ark(m.product), "ark"), "asvk"
	}
	return l.ca("SEV-"+m.product.String(), "ask", l.ark(m.product), "ark"), "ask"
}

// leaf is the certificate of the machine's VCEK or VLEK, after change.
func (l *lab) leaf(m machine, change ...func(*x509.Certificate)) *x509.Certificate {
	l.Helper()
	if known := l.leaves[m]; known != nil && len(change) == 0 {
		return known
	}
	t := l.leafTemplate(m)
	for _, c := range change {
		c(t)
	}
	parent, key := l.above(m)
	cert := l.issue(t, parent, l.private(l.leafKey(m)).Public(), key)
	if len(change) == 0 {
		l.leaves[m] = cert
	}
	return cert
}

func (l *lab) leafTemplate(m machine) *x509.Certificate {
	t := l.template("SEV-" + m.key.String())
	t.ExtraExtensions = m.extensions(l)
	return t
}

// crl is the product's list, of the time of judgement, after change.
func (l *lab) crl(p verifier.Product, change ...func(*x509.RevocationList)) *x509.RevocationList {
	l.Helper()
	if known := l.crls[p]; known != nil && len(change) == 0 {
		return known
	}
	list := l.crlBy(l.ark(p), "ark", change...)
	if len(change) == 0 {
		l.crls[p] = list
	}
	return list
}

func (l *lab) crlBy(issuer *x509.Certificate, signer string, change ...func(*x509.RevocationList)) *x509.RevocationList {
	l.Helper()
	t := &x509.RevocationList{
		SignatureAlgorithm: x509.SHA384WithRSAPSS, Number: big.NewInt(1),
		ThisUpdate: labTime.AddDate(0, -1, 0), NextUpdate: labTime.AddDate(1, 0, 0),
	}
	for _, c := range change {
		c(t)
	}
	by := *issuer
	by.PublicKey, by.KeyUsage, by.SubjectKeyId = l.private(signer).Public(), x509.KeyUsageCRLSign, []byte(signer)
	der, err := x509.CreateRevocationList(rand.Reader, t, &by, l.private(signer))
	if err != nil {
		l.Fatal(err)
	}
	list, err := verifier.ParseCRL(der)
	if err != nil {
		l.Fatal(err)
	}
	return list
}

// chain is the simulated chain of a machine, with a list in date.
func (l *lab) chain(m machine) *verifier.SimulatedChain {
	l.Helper()
	ask, _ := l.above(m)
	var text []byte
	for _, c := range []*x509.Certificate{ask, l.ark(m.product)} {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: l.crl(m.product).Raw})...)
	chain, err := verifier.ParseSimulatedChain(text)
	if err != nil {
		l.Fatal(err)
	}
	return chain
}
