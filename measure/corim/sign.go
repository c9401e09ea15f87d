package corim

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/veraison/go-cose"
)

const (
	contentType = "application/rim+cbor"
	// labelMeta is corim-meta's label in a protected-corim-header-map.
	labelMeta = int64(8)
)

// ErrSignature is a manifest that the key has not signed.
var ErrSignature = errors.New("the key has not signed it")

// Signature says what a signed manifest says of its signer. It is worth nothing
// before Verify has checked it.
type Signature struct {
	Algorithm string // its COSE name, as ES256
	// KeyID is the SHA-256 of the key's SubjectPublicKeyInfo.
	KeyID [32]byte
}

// wireMeta is a corim-meta-map.
type wireMeta struct {
	Signer wireSigner `cbor:"0,keyasint"`
}

// wireSigner is a corim-signer-map.
type wireSigner struct {
	Name string `cbor:"0,keyasint"`
}

// Sign returns the manifest in a COSE_Sign1 (RFC 9052, section 4.2), tagged. Keys
// are ECDSA (P-256, P-384, P-521 as ES256, ES384, ES512), Ed25519 (EdDSA) or RSA
// (PS256). ECDSA and RSA signatures differ from run to run, the payload does not.
func Sign(m Manifest, key crypto.Signer) ([]byte, error) {
	out, err := sign(m, key)
	if err != nil {
		return nil, fmt.Errorf("signing a CoRIM: %w", err)
	}
	return out, nil
}

func sign(m Manifest, key crypto.Signer) ([]byte, error) {
	payload, err := marshal(m)
	if err != nil {
		return nil, err
	}
	algorithm, err := algorithmOf(key.Public())
	if err != nil {
		return nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	protected, err := protectedHeader(algorithm, id)
	if err != nil {
		return nil, err
	}
	signer, err := cose.NewSigner(algorithm, key)
	if err != nil {
		return nil, err
	}
	out, err := cose.Sign1(rand.Reader, signer, cose.Headers{Protected: protected}, payload, nil)
	if err != nil {
		return nil, err
	}
	// A key may be behind a program that shows another one than it signs with.
	if _, err := Verify(out, key.Public()); err != nil {
		return nil, err
	}
	return out, nil
}

// Verify returns a manifest that key has signed. One of another key, or of none, is
// an ErrSignature.
func Verify(data []byte, key crypto.PublicKey) (Manifest, error) {
	m, err := verify(data, key)
	if err != nil {
		return Manifest{}, fmt.Errorf("verifying a CoRIM: %w", err)
	}
	return m, nil
}

func verify(data []byte, key crypto.PublicKey) (Manifest, error) {
	m, _, message, err := open(data)
	if err != nil {
		return Manifest{}, err
	}
	if message == nil {
		return Manifest{}, fmt.Errorf("%w: there is no signature", ErrSignature)
	}
	algorithm, err := algorithmOf(key)
	if err != nil {
		return Manifest{}, err
	}
	verifier, err := cose.NewVerifier(algorithm, key)
	if err != nil {
		return Manifest{}, err
	}
	if err := message.Verify(nil, verifier); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return m, nil
}

// Open reads a manifest, signed or not, without checking who signed it; the
// signature is nil where there is none.
func Open(data []byte) (Manifest, *Signature, error) {
	m, s, _, err := open(data)
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("opening a CoRIM: %w", err)
	}
	return m, s, nil
}

// Is reports whether data begins as a manifest does, signed or not.
func Is(data []byte) bool {
	return isSigned(data) || bytes.HasPrefix(data, []byte{0xd9, tagCoRIM >> 8, tagCoRIM & 0xff})
}

func isSigned(data []byte) bool {
	return bytes.HasPrefix(data, []byte{0xc0 | cose.CBORTagSign1Message})
}

func open(data []byte) (Manifest, *Signature, *cose.Sign1Message, error) {
	if !isSigned(data) {
		m, err := parse(data)
		return m, nil, nil, err
	}
	none := func(err error) (Manifest, *Signature, *cose.Sign1Message, error) { return Manifest{}, nil, nil, err }
	if len(data) > MaxSize {
		return none(fmt.Errorf("%d bytes, more than %d", len(data), MaxSize))
	}
	var message cose.Sign1Message
	if err := message.UnmarshalCBOR(data); err != nil {
		return none(err)
	}
	s, err := signatureOf(&message, data)
	if err != nil {
		return none(fmt.Errorf("COSE_Sign1: %w", err))
	}
	m, err := parse(message.Payload)
	if err != nil {
		return none(fmt.Errorf("payload: %w", err))
	}
	return m, s, &message, nil
}

// signatureOf reads the headers, which must be those that protectedHeader makes.
func signatureOf(message *cose.Sign1Message, data []byte) (*Signature, error) {
	algorithm, err := message.Headers.Protected.Algorithm()
	if err != nil {
		return nil, err
	}
	id, ok := message.Headers.Protected[cose.HeaderLabelKeyID].([]byte)
	if !ok || len(id) != sha256.Size {
		return nil, fmt.Errorf("protected: kid: want %d bytes", sha256.Size)
	}
	s := &Signature{Algorithm: algorithm.String(), KeyID: [32]byte(id)}
	protected, err := protectedHeader(algorithm, s.KeyID)
	if err != nil {
		return nil, err
	}
	again, err := (&cose.Sign1Message{
		Headers: cose.Headers{Protected: protected}, Payload: message.Payload, Signature: message.Signature,
	}).MarshalCBOR()
	if err != nil {
		return nil, err
	}
	if at := firstDifference(data, again); at >= 0 {
		return nil, fmt.Errorf("offset %d: not as kattest writes it", at)
	}
	return s, nil
}

// protectedHeader is a protected-corim-header-map-inline.
//
//	label  value
//	1      alg
//	3      content type
//	4      kid, the SHA-256 of the key
//	8      corim-meta: the signer's name, which is the key's
func protectedHeader(algorithm cose.Algorithm, id [32]byte) (cose.ProtectedHeader, error) {
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	meta, err := c.Marshal(wireMeta{wireSigner{"key sha256:" + hex.EncodeToString(id[:])}})
	if err != nil {
		return nil, err
	}
	return cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm:   algorithm,
		cose.HeaderLabelContentType: contentType,
		cose.HeaderLabelKeyID:       id[:],
		labelMeta:                   meta,
	}, nil
}

func keyID(key crypto.PublicKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return sha256.Sum256(der), err
}

// algorithmOf returns the one algorithm that a key is used with.
func algorithmOf(key crypto.PublicKey) (cose.Algorithm, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return cose.AlgorithmES256, nil
		case elliptic.P384():
			return cose.AlgorithmES384, nil
		case elliptic.P521():
			return cose.AlgorithmES512, nil
		}
		return 0, fmt.Errorf("ECDSA keys on %s are not used", k.Params().Name)
	case ed25519.PublicKey:
		return cose.AlgorithmEdDSA, nil
	case *rsa.PublicKey:
		return cose.AlgorithmPS256, nil
	default:
		return 0, fmt.Errorf("keys of type %T are not used", key)
	}
}
