package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-sev-guest/verify/trust"
)

// simulatedMark stands in every subject of a simulated chain.
const simulatedMark = "SIMULATED"

// ParseCertificate reads one certificate, in DER or PEM.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		certs, err := parsePEM(data)
		if err != nil {
			return nil, err
		}
		if len(certs) != 1 {
			return nil, fmt.Errorf("certificate: %d in the file, want one", len(certs))
		}
		return certs[0], nil
	}
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return cert, nil
}

// ParseSimulatedChain reads the ASK and the ARK of a simulated PSP, in PEM and
// in this order. A chain whose names do not say SIMULATED is refused, AMD's
// own among them.
func ParseSimulatedChain(data []byte) ([]*x509.Certificate, error) {
	certs, err := parsePEM(data)
	if err != nil {
		return nil, err
	}
	if len(certs) != 2 {
		return nil, fmt.Errorf("simulated chain: %d certificates, want ASK and ARK", len(certs))
	}
	for _, c := range certs {
		if !strings.Contains(c.Subject.CommonName, simulatedMark) {
			return nil, fmt.Errorf("simulated chain: %q does not say %s", c.Subject.CommonName, simulatedMark)
		}
	}
	return certs, nil
}

func parsePEM(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q, want CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs), err)
		}
		certs, data = append(certs, cert), rest
	}
	if len(certs) == 0 || len(bytes.TrimSpace(data)) != 0 {
		return nil, errors.New("not certificates in PEM")
	}
	return certs, nil
}

// amdChain returns the ASK (for a VLEK the ASVK) and the ARK of a product, as
// go-sev-guest pins them.
func amdChain(p Product, key SigningKey) ([]*x509.Certificate, error) {
	file := map[Product]map[SigningKey][]byte{
		Milan: {VCEK: trust.AskArkMilanVcekBytes, VLEK: trust.AskArkMilanVlekBytes},
		Genoa: {VCEK: trust.AskArkGenoaVcekBytes, VLEK: trust.AskArkGenoaVlekBytes},
		Turin: {VCEK: trust.AskArkTurinVcekBytes, VLEK: trust.AskArkTurinVlekBytes},
	}[p][key]
	certs, err := parsePEM(file)
	if err != nil {
		return nil, fmt.Errorf("AMD's roots of %v for a %v: %w", p, key, err)
	}
	if len(certs) != 2 {
		return nil, fmt.Errorf("AMD's roots of %v for a %v: %d certificates, want 2", p, key, len(certs))
	}
	return certs, nil
}

// checkLink checks that parent signed child, as AMD does: RSASSA-PSS with
// SHA-384 under a key of 4096 bits, names that fit, nothing critical unknown.
func checkLink(child, parent *x509.Certificate) error {
	name := child.Subject.CommonName
	if key, ok := parent.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 4096 {
		return fmt.Errorf("%q: its key is not RSA of 4096 bits", parent.Subject.CommonName)
	}
	if child.SignatureAlgorithm != x509.SHA384WithRSAPSS {
		return fmt.Errorf("%q: signed with %v, want RSASSA-PSS with SHA-384", name, child.SignatureAlgorithm)
	}
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return fmt.Errorf("%q: its issuer is %q, not %q", name, child.Issuer.CommonName, parent.Subject.CommonName)
	}
	if len(child.UnhandledCriticalExtensions) != 0 {
		return fmt.Errorf("%q: unknown critical extension %v", name, child.UnhandledCriticalExtensions[0])
	}
	if err := child.CheckSignatureFrom(parent); err != nil {
		return fmt.Errorf("%q is not signed by %q: %w", name, parent.Subject.CommonName, err)
	}
	return nil
}

// checkChain checks leaf, ASK and ARK, the ARK being trusted by its place.
func checkChain(leaf, ask, ark *x509.Certificate) error {
	if !ask.IsCA || !ark.IsCA || leaf.IsCA {
		return errors.New("the chain's basic constraints do not say CA above, and no CA at its end")
	}
	return errors.Join(checkLink(ark, ark), checkLink(ask, ark), checkLink(leaf, ask))
}

func validAt(t time.Time, certs ...*x509.Certificate) error {
	var errs []error
	for _, c := range certs {
		if t.Before(c.NotBefore) || t.After(c.NotAfter) {
			errs = append(errs, fmt.Errorf("%q is valid from %s to %s", c.Subject.CommonName,
				c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	return errors.Join(errs...)
}

// Extensions of VCEK and VLEK.
// Source: AMD 57230 rev 1.00, tables 8 and 9; FMC: genuine Turin certificates.
const (
	oidBase          = "1.3.6.1.4.1.3704.1."
	oidStructVersion = oidBase + "1"
	oidProductName   = oidBase + "2"
	oidBootloader    = oidBase + "3.1"
	oidTEE           = oidBase + "3.2"
	oidSNP           = oidBase + "3.3"
	oidSPL4          = oidBase + "3.4"
	oidSPL5          = oidBase + "3.5"
	oidSPL6          = oidBase + "3.6"
	oidSPL7          = oidBase + "3.7"
	oidMicrocode     = oidBase + "3.8"
	oidFMC           = oidBase + "3.9"
	oidHWID          = oidBase + "4"
	oidCSPID         = oidBase + "5"
)

// endorsement is what a VCEK or VLEK says.
type endorsement struct {
	cert      *x509.Certificate
	key       SigningKey
	simulated bool
	product   Product
	tcb       TCB
	hwid      []byte // VCEK: 64 bytes, 8 on Turin
	cspID     string // VLEK
}

// newEndorsement reads the certificate of a VCEK or VLEK. It checks form
// alone: no signature, no date.
func newEndorsement(cert *x509.Certificate) (endorsement, error) {
	e := endorsement{cert: cert}
	name, simulated := strings.CutPrefix(cert.Subject.CommonName, simulatedMark+"-")
	e.simulated = simulated
	switch name {
	case "SEV-VCEK":
		e.key = VCEK
	case "SEV-VLEK":
		e.key = VLEK
	default:
		return endorsement{}, fmt.Errorf("subject %.80q is neither SEV-VCEK nor SEV-VLEK", cert.Subject.CommonName)
	}
	if key, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P384() {
		return endorsement{}, errors.New("its key is not ECDSA on P-384")
	}
	values := map[string][]byte{}
	for _, ext := range cert.Extensions { // crypto/x509 has refused duplicates
		if id := ext.Id.String(); strings.HasPrefix(id, oidBase) {
			values[id] = ext.Value
		}
	}
	if err := e.readNames(values); err != nil {
		return endorsement{}, err
	}
	if err := e.readTCB(values); err != nil {
		return endorsement{}, err
	}
	delete(values, oidStructVersion)
	for id := range values {
		return endorsement{}, fmt.Errorf("unknown extension %s", id)
	}
	return e, nil
}

// readNames takes product, chip and provider out of values.
func (e *endorsement) readNames(values map[string][]byte) error {
	name, err := ia5String(values[oidProductName])
	if err != nil {
		return fmt.Errorf("extension %s (product name): %w", oidProductName, err)
	}
	if e.product, err = ParseProduct(name); err != nil {
		return fmt.Errorf("extension %s: %w", oidProductName, err)
	}
	hwid, hasHWID := values[oidHWID]
	csp, hasCSP := values[oidCSPID]
	if hasHWID != (e.key == VCEK) || hasCSP != (e.key == VLEK) {
		return errors.New("a VCEK has a HWID and no CSP_ID, a VLEK the other way round")
	}
	if e.key == VLEK {
		if e.cspID, err = ia5String(csp); err != nil {
			return fmt.Errorf("extension %s (CSP_ID): %w", oidCSPID, err)
		}
	} else {
		want := 64
		if e.product == Turin {
			want = 8
		}
		if len(hwid) != want {
			return fmt.Errorf("extension %s (HWID): %d bytes, want %d on %v", oidHWID, len(hwid), want, e.product)
		}
		e.hwid = hwid
	}
	for _, id := range []string{oidProductName, oidHWID, oidCSPID} {
		delete(values, id)
	}
	return nil
}

// readTCB takes the security patch levels out of values. A level must stand
// where the product has it; spl4 to spl7 are reserved.
func (e *endorsement) readTCB(values map[string][]byte) error {
	var unused [4]byte
	levels := []struct {
		id    string
		value *byte
		need  bool
	}{
		{oidFMC, &e.tcb.FMC, e.product == Turin},
		{oidBootloader, &e.tcb.Bootloader, true},
		{oidTEE, &e.tcb.TEE, true},
		{oidSNP, &e.tcb.SNP, true},
		{oidMicrocode, &e.tcb.Microcode, true},
		{oidSPL4, &unused[0], false},
		{oidSPL5, &unused[1], false},
		{oidSPL6, &unused[2], false},
		{oidSPL7, &unused[3], false},
	}
	for _, l := range levels {
		der, ok := values[l.id]
		if !ok && !l.need {
			continue
		}
		if !ok {
			return fmt.Errorf("extension %s (security patch level): missing", l.id)
		}
		var n int
		if rest, err := asn1.Unmarshal(der, &n); err != nil || len(rest) != 0 || n < 0 || n > 255 {
			return fmt.Errorf("extension %s (security patch level): %x is not an integer from 0 to 255", l.id, der)
		}
		*l.value = byte(n)
		delete(values, l.id)
	}
	if unused != [4]byte{} {
		return fmt.Errorf("reserved security patch levels are %v, want zeros", unused)
	}
	if e.product != Turin && e.tcb.FMC != 0 {
		return fmt.Errorf("FMC level %d on %v, which has none", e.tcb.FMC, e.product)
	}
	return nil
}

func ia5String(der []byte) (string, error) {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(der, &v)
	if err != nil {
		return "", err
	}
	if len(rest) != 0 || v.Class != asn1.ClassUniversal || v.Tag != asn1.TagIA5String || len(v.Bytes) == 0 {
		return "", errors.New("not an IA5String")
	}
	for _, b := range v.Bytes {
		if b < 0x20 || b > 0x7e {
			return "", errors.New("not printable ASCII")
		}
	}
	return string(v.Bytes), nil
}
