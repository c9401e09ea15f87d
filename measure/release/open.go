package release

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

// MaxBundle is the largest bundle that is read, in bytes.
const MaxBundle = 8 << 20

// ErrSignature says that a bundle of good form is not what the key signed: another
// key's signature, none or several, a certificate, or a payload that sigstore's
// verifier cannot read as a statement.
var ErrSignature = errors.New("the release does not verify under this key")

// Open checks the bundle's signature with key, then reads the release.
//
// The key is the whole of the trust: no transparency log is asked for and no
// time is checked, so that a release can be checked offline. Without a key there
// is nothing to trust, and Open fails; a bundle signed by a certificate is
// refused, whatever it says. Entries of a log that a bundle has are not looked at.
func Open(data []byte, key crypto.PublicKey) (Release, error) {
	payload, err := openBundle(data, key)
	if err != nil {
		return Release{}, fmt.Errorf("release bundle: %w", err)
	}
	return ParseStatement(payload)
}

// openBundle returns the payload that key signed.
func openBundle(data []byte, key crypto.PublicKey) ([]byte, error) {
	if len(data) > MaxBundle {
		return nil, fmt.Errorf("%d bytes, more than %d", len(data), MaxBundle)
	}
	if key == nil {
		return nil, errors.New("no key to check it with")
	}
	verifier, err := newVerifier(key)
	if err != nil {
		return nil, err
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	envelope, err := b.Envelope()
	if err != nil {
		return nil, err
	}
	if envelope.PayloadType != PayloadType {
		return nil, fmt.Errorf("payloadType: %.100q, want %q", envelope.PayloadType, PayloadType)
	}
	// The artifact is the boot stack, which the verifier of a report does not
	// have; what it has is the measurement, which the predicate binds.
	policy := verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithKey())
	if _, err := verifier.Verify(&b, policy); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return envelope.DecodeB64Payload()
}

func newVerifier(key crypto.PublicKey) (*verify.Verifier, error) {
	v, err := signature.LoadDefaultVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	trusted := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(v, time.Time{}, time.Time{}), nil
	})
	return verify.NewVerifier(trusted, verify.WithNoObserverTimestamps(), verify.WithoutStatementPredicate())
}
