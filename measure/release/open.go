package release

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/kraudcloud/kattest/measure"
)

// MaxBundle is the largest bundle that is read, in bytes.
const MaxBundle = 8 << 20

// ErrSignature says that a bundle of good form is not what was signed: another
// key's signature, none or several, or a certificate's.
var ErrSignature = errors.New("the signature does not hold")

// Open checks the bundle's signature with key, then reads the release.
//
// The key is the whole of the trust: no transparency log is asked for and no
// time is checked, so that a release can be checked offline. Without a key there
// is nothing to trust, and Open fails; a bundle signed by a certificate is
// refused, whatever it says. Entries of a log that a bundle has are not looked at.
func Open(data []byte, key crypto.PublicKey) (Release, error) {
	payload, _, err := Verify(data, key)
	if err != nil {
		return Release{}, fmt.Errorf("release: %w", err)
	}
	return ParseStatement(payload)
}

// Verify returns the statement that one of the keys signed, and the index of that
// key. For the statement see ParseStatement and ParseRevocation.
func Verify(data []byte, keys ...crypto.PublicKey) (payload []byte, by int, err error) {
	payload, by, err = verifyBundle(data, keys)
	if err != nil {
		return nil, 0, fmt.Errorf("bundle: %w", err)
	}
	return payload, by, nil
}

func verifyBundle(data []byte, keys []crypto.PublicKey) ([]byte, int, error) {
	b, err := ParseBundle(data)
	if err != nil {
		return nil, 0, err
	}
	if b.GetVerificationMaterial().GetPublicKey() == nil {
		return nil, 0, fmt.Errorf("%w: it is signed by a certificate, not by a key", ErrSignature)
	}
	envelope := b.GetDsseEnvelope()
	sig, message := envelope.GetSignatures()[0].GetSig(), PAE(envelope.GetPayloadType(), envelope.GetPayload())
	failed := errors.New("no key to check it with")
	for i, key := range keys {
		if key == nil {
			return nil, 0, failed
		}
		verifier, err := signature.LoadDefaultVerifier(key)
		if err != nil {
			return nil, 0, fmt.Errorf("key: %w", err)
		}
		err = verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message))
		if err == nil {
			return envelope.GetPayload(), i, nil
		}
		failed = fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil, 0, failed
}

// HasCertificate says whether a bundle claims to be signed by a certificate, for
// which see measure/release/keyless, and not by a key. It checks form alone.
func HasCertificate(data []byte) (bool, error) {
	b, err := ParseBundle(data)
	if err != nil {
		return false, fmt.Errorf("bundle: %w", err)
	}
	return b.GetVerificationMaterial().GetPublicKey() == nil, nil
}

// Claim is what a bundle's statement says of itself. Nothing vouches for it.
type Claim struct {
	PredicateType string
	Subjects      map[string]measure.Hash // SHA-256, by name
	Statement     []byte
}

// Claims reads what a bundle says, and checks form alone.
func Claims(data []byte) (Claim, error) {
	b, err := ParseBundle(data)
	if err != nil {
		return Claim{}, fmt.Errorf("bundle: %w", err)
	}
	c := Claim{Subjects: map[string]measure.Hash{}, Statement: b.GetDsseEnvelope().GetPayload()}
	var s struct {
		Subject       []subject `json:"subject"`
		PredicateType string    `json:"predicateType"`
	}
	if err := json.Unmarshal(c.Statement, &s); err != nil {
		return Claim{}, fmt.Errorf("bundle: statement: %w", err)
	}
	if s.PredicateType == "" || len(s.Subject) == 0 {
		return Claim{}, errors.New("bundle: statement: no predicateType, or no subject")
	}
	c.PredicateType = s.PredicateType
	for _, one := range s.Subject {
		c.Subjects[one.Name] = one.Digest.SHA256
	}
	return c, nil
}

// mediaTypes are those of the bundles that are read.
// Source: sigstore's protobuf-specs, sigstore_bundle.proto.
var mediaTypes = []string{
	"application/vnd.dev.sigstore.bundle.v0.3+json",
	"application/vnd.dev.sigstore.bundle+json;version=0.3",
	"application/vnd.dev.sigstore.bundle+json;version=0.2",
	"application/vnd.dev.sigstore.bundle+json;version=0.1",
}

// ParseBundle reads a sigstore bundle that holds an in-toto statement with one
// signature. It checks form alone.
func ParseBundle(data []byte) (*protobundle.Bundle, error) {
	if len(data) > MaxBundle {
		return nil, fmt.Errorf("%d bytes, more than %d", len(data), MaxBundle)
	}
	var b protobundle.Bundle
	if err := protojson.Unmarshal(data, &b); err != nil { // which refuses unknown and duplicate members
		return nil, err
	}
	envelope := b.GetDsseEnvelope()
	switch {
	case !slices.Contains(mediaTypes, b.GetMediaType()):
		return nil, fmt.Errorf("mediaType: %.100q is no bundle's", b.GetMediaType())
	case envelope == nil:
		return nil, errors.New("dsseEnvelope: missing")
	case envelope.GetPayloadType() != PayloadType:
		return nil, fmt.Errorf("payloadType: %.100q, want %q", envelope.GetPayloadType(), PayloadType)
	case len(envelope.GetSignatures()) != 1:
		return nil, fmt.Errorf("%w: %d signatures, want 1", ErrSignature, len(envelope.GetSignatures()))
	}
	return &b, nil
}
