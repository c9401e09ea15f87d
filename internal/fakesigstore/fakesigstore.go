// Package fakesigstore is a sigstore for tests: a certificate authority that gives
// a certificate to any identity, its certificate log, a transparency log and a
// time stamping authority, all in memory. Its bundles are whole, and can be made
// to lack whatever a verifier must miss. Its Server speaks the services' own
// protocols, so that a signer's real clients can be tried.
//
// Logs and time stamps are sigstore-go's own fake; its certificates have no SCT,
// which these have.
package fakesigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"net/url"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"
)

// Authority is one sigstore.
type Authority struct {
	services *ca.VirtualSigstore // transparency log and time stamping authority
	root     *x509.Certificate
	issuer   *x509.Certificate
	key      *ecdsa.PrivateKey // the issuer's
	ctKey    *ecdsa.PrivateKey
	stamps   *root.SigstoreTimestampingAuthority // the server's
	stampKey *ecdsa.PrivateKey
}

// New makes an authority.
func New() (*Authority, error) {
	services, err := ca.NewVirtualSigstore()
	if err != nil {
		return nil, err
	}
	rootCert, rootKey, err := ca.GenerateRootCa()
	if err != nil {
		return nil, err
	}
	issuer, key, err := ca.GenerateFulcioIntermediate(rootCert, rootKey)
	if err != nil {
		return nil, err
	}
	ctKey, err := newKey()
	if err != nil {
		return nil, err
	}
	stamps, stampKey, err := newStamps()
	if err != nil {
		return nil, err
	}
	return &Authority{services, rootCert, issuer, key, ctKey, stamps, stampKey}, nil
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// TrustedRoot returns what a verifier has to trust, JSON.
func (a *Authority) TrustedRoot() ([]byte, error) {
	begin, end := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	logs := a.services.RekorLogs()
	for _, log := range logs {
		id, err := keyID(log.PublicKey)
		if err != nil {
			return nil, err
		}
		log.ID = id[:]
	}
	ctID, err := keyID(a.ctKey.Public())
	if err != nil {
		return nil, err
	}
	ctLogs := map[string]*root.TransparencyLog{hex.EncodeToString(ctID[:]): {
		BaseURL: "https://ct.localhost", ID: ctID[:], ValidityPeriodStart: begin, ValidityPeriodEnd: end,
		HashFunc: crypto.SHA256, PublicKey: a.ctKey.Public(), SignatureHashFunc: crypto.SHA256,
	}}
	authority := &root.FulcioCertificateAuthority{
		Root: a.root, Intermediates: []*x509.Certificate{a.issuer}, URI: "https://fulcio.localhost",
		ValidityPeriodStart: begin, ValidityPeriodEnd: end,
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{authority}, ctLogs, append(a.services.TimestampingAuthorities(), a.stamps), logs)
	if err != nil {
		return nil, err
	}
	return trusted.MarshalJSON()
}

// Signing says who signs, and what the bundle is to lack.
type Signing struct {
	Subject, Issuer string // the subject as a URI
	// Certified is when the certificate begins to be valid, for ten minutes; the
	// zero value is now. Logs and time stamps are of now in any case.
	Certified time.Time

	WithoutSCT, WithoutLog, WithoutPromise, WithoutTimestamp bool
}

// Sign returns a bundle v0.3, JSON, with that in-toto statement.
func (a *Authority) Sign(statement []byte, s Signing) ([]byte, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	certificate, err := a.certify(key.Public(), s)
	if err != nil {
		return nil, err
	}
	const payloadType = "application/vnd.in-toto+json"
	hash := sha256.Sum256(dsse.PAE(payloadType, statement))
	sig, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
	if err != nil {
		return nil, err
	}
	material := &protobundle.VerificationMaterial{
		Content:                   &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: certificate.Raw}},
		TimestampVerificationData: &protobundle.TimestampVerificationData{},
	}
	if !s.WithoutTimestamp {
		stamp, err := a.services.TimestampResponse(sig)
		if err != nil {
			return nil, err
		}
		material.TimestampVerificationData.Rfc3161Timestamps = []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}}
	}
	if !s.WithoutLog {
		envelope := &dsse.Envelope{
			PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(statement),
			Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(sig)}},
		}
		entry, err := a.log(certificate, envelope, sig, s)
		if err != nil {
			return nil, err
		}
		material.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	return protojson.Marshal(&protobundle.Bundle{
		MediaType:            "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: material,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: statement, PayloadType: payloadType, Signatures: []*protodsse.Signature{{Sig: sig}},
		}},
	})
}

// log enters the signature into the transparency log, of which it is the one entry.
func (a *Authority) log(certificate *x509.Certificate, envelope *dsse.Envelope, sig []byte, s Signing) (*protorekor.TransparencyLogEntry, error) {
	now := time.Now().Unix()
	entry, err := a.services.GenerateTlogEntry(certificate, envelope, sig, now, true)
	if err != nil {
		return nil, err
	}
	proto := entry.TransparencyLogEntry()
	proto.KindVersion = &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"}
	if s.WithoutPromise {
		return proto, nil
	}
	promise, err := a.services.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(proto.GetCanonicalizedBody()), IntegratedTime: now,
		LogIndex: proto.GetLogIndex(), LogID: hex.EncodeToString(proto.GetLogId().GetKeyId()),
	})
	if err != nil {
		return nil, err
	}
	proto.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
	return proto, nil
}

// Extensions of a certificate.
// Source: RFC 6962, section 3.3; sigstore/fulcio, docs/oid-info.md.
var (
	oidSCTs   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
	oidIssuer = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
)

// certify makes the certificate twice: the log's signature is over what it is
// without that signature.
func (a *Authority) certify(key crypto.PublicKey, s Signing) (*x509.Certificate, error) {
	begin := s.Certified
	if begin.IsZero() {
		begin = time.Now().Add(-time.Minute)
	}
	subject, err := url.Parse(s.Subject)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(begin.UnixNano()), URIs: []*url.URL{subject},
		NotBefore: begin, NotAfter: begin.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: oidIssuer, Value: []byte(s.Issuer)}},
	}
	without, err := a.issue(template, key)
	if err != nil || s.WithoutSCT {
		return without, err
	}
	scts, err := a.scts(without)
	if err != nil {
		return nil, err
	}
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: oidSCTs, Value: scts})
	return a.issue(template, key)
}

func (a *Authority) issue(template *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.issuer, key, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// scts returns the extension's value with the certificate log's one promise.
func (a *Authority) scts(certificate *x509.Certificate) ([]byte, error) {
	id, err := keyID(a.ctKey.Public())
	if err != nil {
		return nil, err
	}
	issuer, err := keyID(a.key.Public())
	if err != nil {
		return nil, err
	}
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, LogID: ct.LogID{KeyID: id}, Timestamp: uint64(time.Now().UnixMilli())}
	signed, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{
			EntryType: ct.PrecertLogEntryType, Timestamp: sct.Timestamp,
			PrecertEntry: &ct.PreCert{IssuerKeyHash: issuer, TBSCertificate: certificate.RawTBSCertificate},
		},
	}})
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(signed)
	sig, err := ecdsa.SignASN1(rand.Reader, a.ctKey, hash[:])
	if err != nil {
		return nil, err
	}
	sct.Signature = ct.DigitallySigned{Algorithm: tls.SignatureAndHashAlgorithm{Hash: tls.SHA256, Signature: tls.ECDSA}, Signature: sig}
	list, err := x509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{&sct})
	if err != nil {
		return nil, err
	}
	der, err := tls.Marshal(*list)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(der)
}

// keyID is how logs are named: the SHA-256 of the key's SubjectPublicKeyInfo.
func keyID(key crypto.PublicKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return sha256.Sum256(der), err
}
