package idblock

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// Sizes of a public key and of a signature, in bytes.
const (
	KeySize       = 1028
	SignatureSize = 512
)

const (
	curveP384 = 2
	fieldSize = 72 // of a coordinate or scalar, which has 48 bytes on P-384
	pointSize = 48
)

// PublicKey is an ECDSA key on P-384 as the firmware reads it. The zero value
// is none.
//
// Source: AMD 56860, chapter 10 (digital signatures), ECDSA P-384 public key.
// Coordinates are little-endian.
//
//	offset  size  field
//	0x000   4     CURVE, 2 (P-384), little-endian
//	0x004   72    QX
//	0x04c   72    QY
//	0x094   880   reserved
type PublicKey [KeySize]byte

// NewPublicKey encodes a key, which must be of ECDSA on P-384.
func NewPublicKey(key crypto.PublicKey) (PublicKey, error) {
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return PublicKey{}, fmt.Errorf("a key of type %T, want ECDSA on P-384", key)
	}
	if ec.Curve != elliptic.P384() {
		return PublicKey{}, fmt.Errorf("an ECDSA key on %s, want one on P-384", ec.Curve.Params().Name)
	}
	point, err := ec.Bytes() // 4, then X and Y, big-endian
	if err != nil {
		return PublicKey{}, err
	}
	var k PublicKey
	binary.LittleEndian.PutUint32(k[:], curveP384)
	copy(k[0x004:], reversed(point[1:1+pointSize]))
	copy(k[0x04c:], reversed(point[1+pointSize:]))
	return k, nil
}

// ECDSA decodes the key. It checks that the point is on the curve and that what
// is reserved is zero; offsets in an error are the key's own.
func (k PublicKey) ECDSA() (*ecdsa.PublicKey, error) {
	if curve := binary.LittleEndian.Uint32(k[:]); curve != curveP384 {
		return nil, fmt.Errorf("CURVE (bytes 0x000 to 0x003): %d, want %d (P-384)", curve, curveP384)
	}
	x, errX := number(k[:], "QX", 0x004)
	y, errY := number(k[:], "QY", 0x04c)
	if err := errors.Join(errX, errY, zero(k[:], 0x094, KeySize)); err != nil {
		return nil, err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P384(), slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, errors.New("QX, QY (bytes 0x004 to 0x093): not a point on P-384")
	}
	return key, nil
}

// Digest returns what a report has of the key.
func (k PublicKey) Digest() KeyDigest { return sha512.Sum384(k[:]) }

// Signature is an ECDSA signature on P-384 over a SHA-384, as the firmware
// reads it. The zero value is none.
//
// Source: AMD 56860, chapter 10 (digital signatures), ECDSA P-384 signature.
// Scalars are little-endian.
//
//	offset  size  field
//	0x000   72    R
//	0x048   72    S
//	0x090   368   reserved
type Signature [SignatureSize]byte

// scalars is a signature's ASN.1 form. Source: RFC 3279, section 2.2.3.
type scalars struct{ R, S *big.Int }

// NewSignature encodes a signature given in ASN.1 DER, as crypto.Signer has it.
func NewSignature(der []byte) (Signature, error) {
	var v scalars
	rest, err := asn1.Unmarshal(der, &v)
	if err != nil || len(rest) > 0 {
		return Signature{}, errors.New("not an ECDSA signature in ASN.1")
	}
	var s Signature
	for offset, n := range map[int]*big.Int{0x000: v.R, 0x048: v.S} {
		if !inRange(n) {
			return Signature{}, errors.New("an ECDSA signature of another curve than P-384")
		}
		copy(s[offset:], reversed(n.FillBytes(make([]byte, pointSize))))
	}
	return s, nil
}

// DER returns the signature in ASN.1. It checks that R and S are scalars of
// P-384 and that what is reserved is zero.
func (s Signature) DER() ([]byte, error) {
	r, errR := scalar(s[:], "R", 0x000)
	t, errS := scalar(s[:], "S", 0x048)
	if err := errors.Join(errR, errS, zero(s[:], 0x090, SignatureSize)); err != nil {
		return nil, err
	}
	return asn1.Marshal(scalars{r, t})
}

func scalar(data []byte, name string, offset int) (*big.Int, error) {
	b, err := number(data, name, offset)
	if err != nil {
		return nil, err
	}
	n := new(big.Int).SetBytes(b)
	if !inRange(n) {
		return nil, fmt.Errorf("%s (bytes 0x%03x to 0x%03x): not between 1 and the order of P-384", name, offset, offset+fieldSize-1)
	}
	return n, nil
}

func inRange(n *big.Int) bool {
	return n.Sign() > 0 && n.Cmp(elliptic.P384().Params().N) < 0
}

// number returns the field at offset big-endian, without the bytes that are
// zero on P-384.
func number(data []byte, name string, offset int) ([]byte, error) {
	if err := zero(data, offset+pointSize, offset+fieldSize); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return reversed(data[offset : offset+pointSize]), nil
}

// zero checks that the bytes from start up to end are zero.
func zero(data []byte, start, end int) error {
	for i := start; i < end; i++ {
		if data[i] != 0 {
			return fmt.Errorf("byte 0x%03x: reserved (0x%03x to 0x%03x), but 0x%02x", i, start, end-1, data[i])
		}
	}
	return nil
}

func reversed(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}
