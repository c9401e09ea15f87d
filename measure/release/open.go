package release

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
)

// MaxBundle is the largest bundle that is read, in bytes.
const MaxBundle = 8 << 20

// ErrSignature says that a bundle of good form is not what the key signed: another
// key's signature, none or several, or a certificate's.
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
	if key == nil {
		return nil, errors.New("no key to check it with")
	}
	verifier, err := signature.LoadDefaultVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	b, err := parseBundle(data)
	if err != nil {
		return nil, err
	}
	if b.GetVerificationMaterial().GetPublicKey() == nil {
		return nil, fmt.Errorf("%w: it is signed by a certificate, not by a key", ErrSignature)
	}
	envelope := b.GetDsseEnvelope()
	sig := envelope.GetSignatures()[0].GetSig()
	if err := verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(dsse.PAE(envelope.GetPayloadType(), envelope.GetPayload()))); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return envelope.GetPayload(), nil
}

// mediaTypes are those of the bundles that are read.
// Source: sigstore's protobuf-specs, sigstore_bundle.proto.
var mediaTypes = []string{
	"application/vnd.dev.sigstore.bundle.v0.3+json",
	"application/vnd.dev.sigstore.bundle+json;version=0.3",
	"application/vnd.dev.sigstore.bundle+json;version=0.2",
	"application/vnd.dev.sigstore.bundle+json;version=0.1",
}

// parseBundle reads a sigstore bundle that holds an in-toto statement with one
// signature. It checks form alone.
func parseBundle(data []byte) (*protobundle.Bundle, error) {
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
