package release

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"
)

// Sign returns the release in a sigstore bundle v0.3, JSON: an in-toto statement
// in a DSSE envelope with one signature. Nothing is sent anywhere: the bundle has
// no entry of a transparency log and no timestamp.
//
// Keys are ECDSA (P-256 with SHA-256, P-384 with SHA-384, P-521 with SHA-512),
// Ed25519, or RSA of 2048, 3072 or 4096 bits (PKCS #1 v1.5, SHA-256).
func Sign(r Release, key crypto.Signer) ([]byte, error) {
	payload, err := r.Statement()
	if err != nil {
		return nil, err
	}
	out, err := signBundle(payload, key)
	if err != nil {
		return nil, fmt.Errorf("signing the release: %w", err)
	}
	return out, nil
}

// SignStatement returns an in-toto statement, which is not looked at, in a bundle
// as Sign does a release.
func SignStatement(statement []byte, key crypto.Signer) ([]byte, error) {
	out, err := signBundle(statement, key)
	if err != nil {
		return nil, fmt.Errorf("signing a statement: %w", err)
	}
	return out, nil
}

// signBundle returns the bundle, whose signature it has checked.
func signBundle(payload []byte, key crypto.Signer) ([]byte, error) {
	sig, err := signMessage(key, PAE(PayloadType, payload))
	if err != nil {
		return nil, err
	}
	hint, err := keyHint(key.Public())
	if err != nil {
		return nil, err
	}
	out, err := protojson.Marshal(&protobundle.Bundle{
		MediaType: mediaTypes[0],
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{Hint: hint}},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: PayloadType,
			Signatures: []*protodsse.Signature{{Sig: sig}},
		}},
	})
	if err != nil {
		return nil, err
	}
	// A key may be behind a program that shows another one than it signs with.
	if _, _, err := Verify(out, key.Public()); err != nil {
		return nil, err
	}
	return append(out, '\n'), nil
}

// PAE is what an envelope's signature is over: the pre-authentication encoding. The
// library that has it brings SSH along, for which every start of kattest would pay.
// Source: DSSE, protocol.md, Signature Definition.
func PAE(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// hashOf returns the hash that sigstore uses with the key, 0 where the key signs
// the data itself.
func hashOf(key crypto.Signer) (crypto.Hash, error) {
	if key == nil {
		return 0, errors.New("no key")
	}
	algorithm, err := signature.GetDefaultAlgorithmDetails(key.Public())
	if err != nil {
		return 0, err
	}
	return algorithm.GetHashType(), nil
}

func signMessage(key crypto.Signer, message []byte) ([]byte, error) {
	hash, err := hashOf(key)
	if err != nil {
		return nil, err
	}
	if hash != 0 {
		h := hash.New()
		h.Write(message)
		message = h.Sum(nil)
	}
	return key.Sign(rand.Reader, message, hash)
}

// keyHint names the key for people; Open does not look at it.
func keyHint(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:]), err
}

// ParsePrivateKey reads a private key in PEM: PKCS #8, SEC 1 or PKCS #1, or an
// encrypted key of PKCS #8 or cosign, for which password is asked.
func ParsePrivateKey(pem []byte, password func() ([]byte, error)) (crypto.Signer, error) {
	key, err := cryptoutils.UnmarshalPEMToPrivateKey(pem, func(bool) ([]byte, error) { return password() })
	if err != nil {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("reading the private key: %T cannot sign", key)
	}
	if _, err := hashOf(signer); err != nil {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	return signer, nil
}

// ParsePublicKey reads a public key in PEM, as `openssl pkey -pubout` and
// cosign.pub have it.
func ParsePublicKey(pem []byte) (crypto.PublicKey, error) {
	key, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	if _, err := signature.GetDefaultAlgorithmDetails(key); err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	return key, nil
}
