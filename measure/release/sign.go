package release

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
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
func Sign(ctx context.Context, r Release, key crypto.Signer) ([]byte, error) {
	payload, err := r.Statement()
	if err != nil {
		return nil, err
	}
	pair, err := newKeypair(key)
	if err != nil {
		return nil, fmt.Errorf("signing the release: %w", err)
	}
	content := &sign.DSSEData{Data: payload, PayloadType: PayloadType}
	b, err := sign.Bundle(content, pair, sign.BundleOptions{Context: ctx})
	if err != nil {
		return nil, fmt.Errorf("signing the release: %w", err)
	}
	out, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("signing the release: %w", err)
	}
	return append(out, '\n'), nil
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
	if _, err := newKeypair(signer); err != nil {
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

// keypair is a long-lived key as sigstore's signer wants it.
type keypair struct {
	key       crypto.Signer
	algorithm signature.AlgorithmDetails
	der       []byte // SubjectPublicKeyInfo
}

func newKeypair(key crypto.Signer) (*keypair, error) {
	if key == nil {
		return nil, errors.New("no key")
	}
	algorithm, err := signature.GetDefaultAlgorithmDetails(key.Public())
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return &keypair{key, algorithm, der}, nil
}

func (k *keypair) GetHashAlgorithm() protocommon.HashAlgorithm {
	return k.algorithm.GetProtoHashType()
}

func (k *keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return k.algorithm.GetSignatureAlgorithm()
}

// GetHint names the key for people; Open does not look at it.
func (k *keypair) GetHint() []byte {
	sum := sha256.Sum256(k.der)
	return []byte(base64.StdEncoding.EncodeToString(sum[:]))
}

func (k *keypair) GetKeyAlgorithm() string {
	switch k.algorithm.GetKeyType() {
	case signature.ECDSA:
		return "ECDSA"
	case signature.ED25519:
		return "ED25519"
	default:
		return "RSA"
	}
}

func (k *keypair) GetPublicKey() crypto.PublicKey { return k.key.Public() }

func (k *keypair) GetPublicKeyPem() (string, error) {
	b, err := cryptoutils.MarshalPublicKeyToPEM(k.key.Public())
	return string(b), err
}

// SignData returns the signature and what was signed: the digest, but for
// Ed25519 the data itself.
func (k *keypair) SignData(_ context.Context, data []byte) (sig, signed []byte, err error) {
	hash := k.algorithm.GetHashType()
	if hash != 0 {
		h := hash.New()
		h.Write(data)
		data = h.Sum(nil)
	}
	sig, err = k.key.Sign(rand.Reader, data, hash)
	return sig, data, err
}
