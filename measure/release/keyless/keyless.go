// Package keyless makes and checks bundles that are signed without a long-lived
// key: by a certificate of minutes that a sigstore certificate authority (Fulcio)
// gave to an identity of OpenID Connect. It is sigstore-go's signer, and its
// verifier with thresholds that do not change. Checking needs no network; signing
// asks the services of a signing configuration, and no other.
//
// It does not look at what the statement says, nor keep the trusted root up to
// date: whoever names the root's file vouches for it. The package is heavy, so
// that kattest does not link it but runs kattest-keyless.
package keyless

import (
	"errors"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/kraudcloud/kattest/measure/release"
)

// MaxTrustedRoot is the largest trusted root that is read, in bytes.
const MaxTrustedRoot = 4 << 20

// Least numbers of what must verify under the trusted root.
const (
	certificateTimestamps = 1 // SCTs: the certificate is in a transparency log
	logEntries            = 1 // the signature is in a transparency log: by inclusion proof, or by the log's promise in bundles before v0.3
	timestamps            = 1 // when it was signed: by the log, or by a time stamping authority (RFC 3161)
)

// ParseTrustedRoot reads a trusted root, JSON of media type
// application/vnd.dev.sigstore.trustedroot+json;version=0.1 or v0.2.
func ParseTrustedRoot(data []byte) (*root.TrustedRoot, error) {
	if len(data) > MaxTrustedRoot {
		return nil, fmt.Errorf("trusted root: %d bytes, more than %d", len(data), MaxTrustedRoot)
	}
	trusted, err := root.NewTrustedRootFromJSON(data)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	return trusted, nil
}

// Verify returns the statement that id signed, and who that was. The certificate
// must have been valid when the bundle was signed. An error is
// release.ErrSignature where the bundle's form is good.
func Verify(data []byte, trusted root.TrustedMaterial, id release.Identity) (statement []byte, by release.Signer, err error) {
	statement, by, err = verifyBundle(data, trusted, id)
	if err != nil {
		return nil, release.Signer{}, fmt.Errorf("bundle: %w", err)
	}
	return statement, by, nil
}

func verifyBundle(data []byte, trusted root.TrustedMaterial, id release.Identity) ([]byte, release.Signer, error) {
	var none release.Signer
	identity, err := certificateIdentity(id)
	if err != nil {
		return nil, none, err
	}
	verifier, err := newVerifier(trusted)
	if err != nil {
		return nil, none, err
	}
	certificate, err := release.HasCertificate(data) // bounds, media type, payload type, one signature
	if err != nil {
		return nil, none, err
	}
	if !certificate {
		return nil, none, fmt.Errorf("%w: it is signed by a key, not by a certificate", release.ErrSignature)
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(data); err != nil {
		return nil, none, err
	}
	// The artifact is the boot stack, which the verifier of a report does not have.
	result, err := verifier.Verify(&b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithCertificateIdentity(identity)))
	if err != nil {
		return nil, none, fmt.Errorf("%w: %w", release.ErrSignature, err)
	}
	if result.Signature == nil || result.Signature.Certificate == nil || len(result.VerifiedTimestamps) < timestamps {
		return nil, none, errors.New("sigstore's verifier names no signer or no time")
	}
	envelope, err := b.Envelope()
	if err != nil {
		return nil, none, err
	}
	statement, err := envelope.DecodeB64Payload()
	if err != nil {
		return nil, none, err
	}
	signer := result.Signature.Certificate
	return statement, release.Signer{
		Subject: signer.SubjectAlternativeName, Issuer: signer.Issuer, Time: result.VerifiedTimestamps[0].Timestamp.UTC(),
	}, nil
}

func newVerifier(trusted root.TrustedMaterial) (*verify.Verifier, error) {
	return verify.NewVerifier(trusted, verify.WithSignedCertificateTimestamps(certificateTimestamps),
		verify.WithTransparencyLog(logEntries), verify.WithObserverTimestamps(timestamps), verify.WithoutStatementPredicate())
}

// certificateIdentity is id as sigstore-go takes it, which anchors no pattern.
func certificateIdentity(id release.Identity) (verify.CertificateIdentity, error) {
	if err := id.Check(); err != nil {
		return verify.CertificateIdentity{}, err
	}
	subject, err := anchored(id.SubjectPattern)
	if err != nil {
		return verify.CertificateIdentity{}, err
	}
	issuer, err := anchored(id.IssuerPattern)
	if err != nil {
		return verify.CertificateIdentity{}, err
	}
	return verify.NewShortCertificateIdentity(id.Issuer, issuer, id.Subject, subject)
}

func anchored(pattern string) (string, error) {
	if pattern == "" {
		return "", nil
	}
	re, err := release.Anchor(pattern)
	if err != nil {
		return "", err
	}
	return re.String(), nil
}
