package simpsp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"
)

// Names in the chain, after AMD's ARK-Milan, SEV-Milan and SEV-VCEK.
const (
	arkName  = "SIMULATED-ARK-Milan"
	askName  = "SIMULATED-SEV-Milan"
	vcekName = "SIMULATED-SEV-VCEK"
	orgName  = "SIMULATED, not Advanced Micro Devices"
)

// X.509 extensions of a VCEK.
// Source: AMD 57230 (VCEK certificate and KDS interface specification), and
// genuine certificates.
var (
	oidStructVersion = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 1}
	oidProductName   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 2}
	oidBootloaderSPL = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 1}
	oidTEESPL        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 2}
	oidSNPSPL        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 3}
	oidSPL4          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 4}
	oidSPL5          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 5}
	oidSPL6          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 6}
	oidSPL7          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 7}
	oidMicrocodeSPL  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 8}
	oidHWID          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 4}
)

// authority is what stands above a VCEK.
type authority struct {
	ask, ark *x509.Certificate
	crl      *x509.RevocationList
}

// newChain certifies a VCEK. The keys of ARK and ASK are forgotten: the VCEK
// is the only certificate that they ever sign, and the list of what was revoked
// stays empty.
func newChain(key *ecdsa.PublicKey, hwid [64]byte) (vcek *x509.Certificate, a authority, err error) {
	arkKey, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return nil, authority{}, err
	}
	askKey, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return nil, authority{}, err
	}
	// A day's grace for verifiers whose clock is behind.
	start := time.Now().UTC().Truncate(time.Second).AddDate(0, 0, -1)

	arkTemplate := &x509.Certificate{
		SerialNumber:          big.NewInt(0x10000),
		NotBefore:             start,
		NotAfter:              start.AddDate(25, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	if a.ark, err = sign(arkTemplate, arkName, arkTemplate, arkKey.Public(), arkKey); err != nil {
		return nil, authority{}, err
	}
	if a.crl, err = emptyList(a.ark, arkKey); err != nil {
		return nil, authority{}, err
	}
	a.ask, err = sign(&x509.Certificate{
		SerialNumber:          big.NewInt(0x10001),
		NotBefore:             start,
		NotAfter:              start.AddDate(25, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}, askName, a.ark, askKey.Public(), arkKey)
	if err != nil {
		return nil, authority{}, err
	}
	extensions, err := vcekExtensions(hwid)
	if err != nil {
		return nil, authority{}, err
	}
	issuer := *a.ask
	issuer.SubjectKeyId = nil // a VCEK carries AMD's extensions and no others
	vcek, err = sign(&x509.Certificate{
		SerialNumber:    big.NewInt(0),
		NotBefore:       start,
		NotAfter:        start.AddDate(7, 0, 0),
		ExtraExtensions: extensions,
	}, vcekName, &issuer, key, askKey)
	return vcek, a, err
}

// emptyList is a revocation list that is good for as long as the ARK.
func emptyList(ark *x509.Certificate, key crypto.Signer) (*x509.RevocationList, error) {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		SignatureAlgorithm: x509.SHA384WithRSAPSS,
		Number:             big.NewInt(1),
		ThisUpdate:         ark.NotBefore,
		NextUpdate:         ark.NotAfter,
	}, ark, key)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	return x509.ParseRevocationList(der)
}

func sign(template *x509.Certificate, name string, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	var err error
	if template.RawSubject, err = subject(name); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	template.SignatureAlgorithm = x509.SHA384WithRSAPSS
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return x509.ParseCertificate(der)
}

// subject encodes a name with AMD's attributes, in AMD's order and string types.
func subject(commonName string) ([]byte, error) {
	var rdns pkix.RDNSequence
	for _, attribute := range []struct {
		oid   asn1.ObjectIdentifier
		tag   int
		value string
	}{
		{asn1.ObjectIdentifier{2, 5, 4, 11}, asn1.TagUTF8String, "Engineering"},
		{asn1.ObjectIdentifier{2, 5, 4, 6}, asn1.TagPrintableString, "US"},
		{asn1.ObjectIdentifier{2, 5, 4, 7}, asn1.TagUTF8String, "Santa Clara"},
		{asn1.ObjectIdentifier{2, 5, 4, 8}, asn1.TagUTF8String, "CA"},
		{asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.TagUTF8String, orgName},
		{asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.TagUTF8String, commonName},
	} {
		value := asn1.RawValue{Tag: attribute.tag, Bytes: []byte(attribute.value)}
		rdns = append(rdns, pkix.RelativeDistinguishedNameSET{{Type: attribute.oid, Value: value}})
	}
	return asn1.Marshal(rdns)
}

// vcekExtensions encodes the extensions in the order in which AMD's KDS does.
// The HWID alone stands bare in its OCTET STRING; the others are DER values.
func vcekExtensions(hwid [64]byte) ([]pkix.Extension, error) {
	var extensions []pkix.Extension
	for _, e := range []struct {
		oid   asn1.ObjectIdentifier
		value any
	}{
		{oidStructVersion, 0},
		{oidProductName, asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(productName)}},
		{oidBootloaderSPL, int(tcb.Bootloader)},
		{oidTEESPL, int(tcb.TEE)},
		{oidSPL4, 0},
		{oidSPL5, 0},
		{oidSPL6, 0},
		{oidSPL7, 0},
		{oidSNPSPL, int(tcb.SNP)},
		{oidMicrocodeSPL, int(tcb.Microcode)},
	} {
		der, err := asn1.Marshal(e.value)
		if err != nil {
			return nil, fmt.Errorf("extension %s: %w", e.oid, err)
		}
		extensions = append(extensions, pkix.Extension{Id: e.oid, Value: der})
	}
	return append(extensions, pkix.Extension{Id: oidHWID, Value: hwid[:]}), nil
}
