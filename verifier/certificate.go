package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
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

// SimulatedChain is what vouches for a simulated PSP.
type SimulatedChain struct {
	ASK, ARK *x509.Certificate
	CRL      *x509.RevocationList // nil where there is none
}

// ParseSimulatedChain reads the ASK and the ARK of a simulated PSP and, where
// there is one, its revocation list, in PEM and in this order. A chain whose
// names do not say SIMULATED is refused, AMD's own among them.
func ParseSimulatedChain(data []byte) (*SimulatedChain, error) {
	var c SimulatedChain
	if i := bytes.Index(data, []byte("-----BEGIN "+crlBlock)); i >= 0 {
		list, err := ParseCRL(data[i:])
		if err != nil {
			return nil, fmt.Errorf("simulated chain: %w", err)
		}
		c.CRL, data = list, data[:i]
	}
	certs, err := parsePEM(data)
	if err != nil {
		return nil, fmt.Errorf("simulated chain: %w", err)
	}
	if len(certs) != 2 {
		return nil, fmt.Errorf("simulated chain: %d certificates, want ASK and ARK", len(certs))
	}
	for _, cert := range certs {
		if !strings.Contains(cert.Subject.CommonName, simulatedMark) {
			return nil, fmt.Errorf("simulated chain: %q does not say %s", cert.Subject.CommonName, simulatedMark)
		}
	}
	c.ASK, c.ARK = certs[0], certs[1]
	return &c, nil
}

// ParseChain reads certificates in PEM, such as AMD's KDS gives: ASK, then ARK.
func ParseChain(data []byte) ([]*x509.Certificate, error) { return parsePEM(data) }

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

// maxStructVersion is the last layout of these extensions that is known: 0
// before Turin, 1 on it.
const maxStructVersion = 1

// endorsement is what a VCEK or VLEK says.
type endorsement struct {
	cert      *x509.Certificate
	key       SigningKey
	simulated bool
	product   Product
	tcb       TCB
	chipID    [64]byte // VCEK: its HWID, zeros behind
	cspID     string   // VLEK
	id        [32]byte // SHA-256 of the certificate
}

// newEndorsement reads the certificate of a VCEK or VLEK. It checks form
// alone: no signature, no date.
func newEndorsement(cert *x509.Certificate) (*endorsement, error) {
	e := &endorsement{cert: cert}
	name, simulated := strings.CutPrefix(cert.Subject.CommonName, simulatedMark+"-")
	e.simulated = simulated
	switch name {
	case "SEV-VCEK":
		e.key = VCEK
	case "SEV-VLEK":
		e.key = VLEK
	default:
		return nil, fmt.Errorf("subject %.80q is neither SEV-VCEK nor SEV-VLEK", cert.Subject.CommonName)
	}
	if key, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P384() {
		return nil, errors.New("its key is not ECDSA on P-384")
	}
	values := map[string][]byte{}
	for _, ext := range cert.Extensions { // crypto/x509 has refused duplicates
		values[ext.Id.String()] = ext.Value
	}
	if err := e.readNames(values); err != nil {
		return nil, err
	}
	if err := e.readTCB(values); err != nil {
		return nil, err
	}
	for id := range values {
		return nil, fmt.Errorf("unknown extension %.80s", id)
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
		if want := e.product.HWIDSize(); len(hwid) != want {
			return fmt.Errorf("extension %s (HWID): %d bytes, want %d on %v", oidHWID, len(hwid), want, e.product)
		}
		if copy(e.chipID[:], hwid); e.chipID == [64]byte{} {
			return fmt.Errorf("extension %s (HWID): zero is no chip's", oidHWID)
		}
	}
	for _, id := range []string{oidProductName, oidHWID, oidCSPID} {
		delete(values, id)
	}
	return nil
}

// readTCB takes the security patch levels and the version of their layout out
// of values. A level must stand where the product has it; spl4 to spl7 are
// reserved.
func (e *endorsement) readTCB(values map[string][]byte) error {
	var version byte
	var unused [4]byte
	levels := []struct {
		id    string
		value *byte
		need  bool
	}{
		{oidStructVersion, &version, true},
		{oidFMC, &e.tcb.FMC, e.product == Turin},
		{oidBootloader, &e.tcb.Bootloader, true},
		{oidTEE, &e.tcb.TEE, true},
		{oidSNP, &e.tcb.SNP, true},
		{oidMicrocode, &e.tcb.Microcode, true},
		{oidSPL4, &unused[0], e.product != Turin},
		{oidSPL5, &unused[1], true},
		{oidSPL6, &unused[2], true},
		{oidSPL7, &unused[3], true},
	}
	for _, l := range levels {
		der, ok := values[l.id]
		if !ok && !l.need {
			continue
		}
		if !ok {
			return fmt.Errorf("extension %s: missing", l.id)
		}
		var n int
		if rest, err := asn1.Unmarshal(der, &n); err != nil || len(rest) != 0 || n < 0 || n > 255 {
			return fmt.Errorf("extension %s: %.32x is not an integer from 0 to 255", l.id, der)
		}
		*l.value = byte(n)
		delete(values, l.id)
	}
	if version > maxStructVersion {
		return fmt.Errorf("extension %s: unknown version %d", oidStructVersion, version)
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
	if len(rest) != 0 || v.Class != asn1.ClassUniversal || v.Tag != asn1.TagIA5String || len(v.Bytes) == 0 || len(v.Bytes) > 255 {
		return "", errors.New("not an IA5String of 1 to 255 bytes")
	}
	for _, b := range v.Bytes {
		if b < 0x20 || b > 0x7e {
			return "", errors.New("not printable ASCII")
		}
	}
	return string(v.Bytes), nil
}

// Endorsement is what the certificate of a VCEK or VLEK says.
type Endorsement struct {
	Key       SigningKey
	Product   Product
	TCB       TCB
	HWID      []byte // of a VCEK: 64 bytes, 8 on Turin
	CSPID     string // of a VLEK
	Simulated bool
}

// ParseEndorsement reads the certificate, in DER, of a VCEK or VLEK. It checks
// form alone: no signature, no date.
func ParseEndorsement(der []byte) (Endorsement, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Endorsement{}, fmt.Errorf("certificate: %w", err)
	}
	e, err := newEndorsement(cert)
	if err != nil {
		return Endorsement{}, fmt.Errorf("certificate: %w", err)
	}
	all := Endorsement{Key: e.key, Product: e.product, TCB: e.tcb, CSPID: e.cspID, Simulated: e.simulated}
	if e.key == VCEK {
		all.HWID = bytes.Clone(e.chipID[:e.product.HWIDSize()])
	}
	return all, nil
}
