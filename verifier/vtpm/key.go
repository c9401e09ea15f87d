package vtpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// Key is the public part of an attestation key (AK). The zero value verifies
// nothing.
type Key struct {
	public crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
	name   []byte           // its Name (part 1, section 16), nil where only the key is known
}

// Name is the key's Name: nameAlg and the hash of its public area. It is nil of
// a key without a public area.
func (k Key) Name() []byte { return k.name }

// String names the key for people: its algorithm, and the SHA-256 of its modulus
// or point.
func (k Key) String() string {
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		sum := sha256.Sum256(pub.N.Bytes())
		return fmt.Sprintf("RSA %d, modulus SHA-256 %s", pub.N.BitLen(), hex.EncodeToString(sum[:]))
	case *ecdsa.PublicKey:
		point, err := pub.Bytes()
		if err != nil {
			return "no key"
		}
		sum := sha256.Sum256(point)
		return fmt.Sprintf("ECDSA %s, point SHA-256 %s", pub.Params().Name, hex.EncodeToString(sum[:]))
	default:
		return "no key"
	}
}

// RSA keys of other sizes, and other exponents, are refused.
const (
	minRSA, maxRSA = 2048, 4096
	rsaExponent    = 65537
)

func newRSAKey(pub *rsa.PublicKey) (Key, error) {
	if bits := pub.N.BitLen(); bits < minRSA || bits > maxRSA {
		return Key{}, fmt.Errorf("an RSA key of %d bits, want %d to %d", bits, minRSA, maxRSA)
	}
	if pub.E != rsaExponent {
		return Key{}, fmt.Errorf("an RSA key with exponent %d, want %d", pub.E, rsaExponent)
	}
	return Key{public: pub}, nil
}

// ParseAK reads the public area (TPMT_PUBLIC; part 2, section 12.2.4) of a key
// that signs what its TPM made and nothing else: restricted, signing, not
// decrypting, fixed to its TPM and made there.
func ParseAK(public []byte) (Key, error) {
	area, err := unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return Key{}, fmt.Errorf("public area of the AK: %w", err)
	}
	key, err := publicKey(area)
	if err != nil {
		return Key{}, fmt.Errorf("public area of the AK: %w", err)
	}
	a := area.ObjectAttributes
	for _, want := range []struct {
		name string
		ok   bool
	}{
		{"fixedTPM is clear", a.FixedTPM},
		{"fixedParent is clear", a.FixedParent},
		{"sensitiveDataOrigin is clear", a.SensitiveDataOrigin},
		{"restricted is clear: the key signs anything", a.Restricted},
		{"sign is clear", a.SignEncrypt},
		{"decrypt is set", !a.Decrypt},
	} {
		if !want.ok {
			return Key{}, fmt.Errorf("public area of the AK: %s", want.name)
		}
	}
	if key.name, err = nameOf(area.NameAlg, public); err != nil {
		return Key{}, fmt.Errorf("public area of the AK: %w", err)
	}
	return key, nil
}

// nameOf returns the Name of an object with this public area.
func nameOf(alg tpm2.TPMIAlgHash, public []byte) ([]byte, error) {
	bank, ok := banks[Bank(alg)]
	if !ok || Bank(alg) == SHA1 {
		return nil, fmt.Errorf("nameAlg: %v, want sha256, sha384 or sha512", Bank(alg))
	}
	h := bank.hash.New()
	h.Write(public)
	return h.Sum([]byte{byte(alg >> 8), byte(alg)}), nil
}

func publicKey(area *tpm2.TPMTPublic) (Key, error) {
	switch area.Type {
	case tpm2.TPMAlgRSA:
		params, err := area.Parameters.RSADetail()
		if err != nil {
			return Key{}, err
		}
		n, err := area.Unique.RSA()
		if err != nil {
			return Key{}, err
		}
		pub, err := tpm2.RSAPub(params, n)
		if err != nil {
			return Key{}, err
		}
		return newRSAKey(pub)
	case tpm2.TPMAlgECC:
		params, err := area.Parameters.ECCDetail()
		if err != nil {
			return Key{}, err
		}
		point, err := area.Unique.ECC()
		if err != nil {
			return Key{}, err
		}
		pub, err := tpm2.ECDSAPub(params, point)
		if err != nil {
			return Key{}, err
		}
		if _, err := pub.ECDH(); err != nil { // whether the point is on the curve
			return Key{}, err
		}
		return Key{public: pub}, nil
	default:
		return Key{}, fmt.Errorf("a key of type 0x%04x, want RSA or ECC", uint16(area.Type))
	}
}

var errSignature = errors.New("the AK's signature does not hold")

// verify checks a TPMT_SIGNATURE (part 2, section 11.3.4) over message, and
// returns the hash that it was made with.
func (k Key) verify(message, signature []byte) (crypto.Hash, error) {
	s, err := unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return 0, fmt.Errorf("signature: %w", err)
	}
	digest := func(alg tpm2.TPMIAlgHash) (crypto.Hash, []byte, error) {
		bank, ok := banks[Bank(alg)]
		if !ok || Bank(alg) == SHA1 {
			return 0, nil, fmt.Errorf("signature: hash %v, want sha256, sha384 or sha512", Bank(alg))
		}
		h := bank.hash.New()
		h.Write(message)
		return bank.hash, h.Sum(nil), nil
	}
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		return verifyRSA(pub, s, digest)
	case *ecdsa.PublicKey:
		ecc, err := s.Signature.ECDSA()
		if err != nil || s.SigAlg != tpm2.TPMAlgECDSA {
			return 0, fmt.Errorf("signature: scheme 0x%04x, want ECDSA", uint16(s.SigAlg))
		}
		hash, sum, err := digest(ecc.Hash)
		if err != nil {
			return 0, err
		}
		if !ecdsa.Verify(pub, sum, new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer)) {
			return 0, errSignature
		}
		return hash, nil
	default:
		return 0, errors.New("there is no AK")
	}
}

func verifyRSA(pub *rsa.PublicKey, s *tpm2.TPMTSignature, digest func(tpm2.TPMIAlgHash) (crypto.Hash, []byte, error)) (crypto.Hash, error) {
	var sig *tpm2.TPMSSignatureRSA
	var err error
	check := func(hash crypto.Hash, sum []byte) error { return rsa.VerifyPKCS1v15(pub, hash, sum, sig.Sig.Buffer) }
	switch s.SigAlg {
	case tpm2.TPMAlgRSASSA:
		sig, err = s.Signature.RSASSA()
	case tpm2.TPMAlgRSAPSS:
		sig, err = s.Signature.RSAPSS()
		check = func(hash crypto.Hash, sum []byte) error { return rsa.VerifyPSS(pub, hash, sum, sig.Sig.Buffer, nil) }
	default:
		return 0, fmt.Errorf("signature: scheme 0x%04x, want RSASSA or RSAPSS", uint16(s.SigAlg))
	}
	if err != nil {
		return 0, fmt.Errorf("signature: %w", err)
	}
	hash, sum, err := digest(sig.Hash)
	if err != nil {
		return 0, err
	}
	if check(hash, sum) != nil {
		return 0, errSignature
	}
	return hash, nil
}
