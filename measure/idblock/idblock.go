// Package idblock reads, writes, signs and checks ID blocks: the structure by
// which a guest's owner makes the SEV-SNP firmware itself refuse a launch with
// another launch digest or policy, and which labels the report.
//
// It checks form and signatures. It does not check who holds the keys, whether
// a policy is a wise one, or that a host hands the block to the firmware at
// all: a report tells, by the digests of the keys. Nothing here was tried on
// SEV-SNP hardware. The formats are documented in docs/spec/idblock.md.
package idblock

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/measure"
)

// BlockSize is the size of an ID block, in bytes.
const BlockSize = 96

// DefaultPolicy is the guest policy that QEMU launches with unless told
// otherwise: bit 17, which must be one, and bit 16, which permits SMT.
// Source: QEMU 10.0.2, qapi/qom.json, SevSnpGuestProperties.
const DefaultPolicy = 0x30000

const blockVersion = 1

// policyReserved1 is the bit of the guest policy that must be one.
// Source: AMD 56860 rev 1.58, section 4.3, table 9.
const policyReserved1 = 1 << 17

// Block is what the firmware holds a launch against, and what it then puts into
// the guest's reports. The guest's owner gives IDs and SVN their meaning.
type Block struct {
	Measurement measure.Digest // LD: the launch digest that the guest must have
	FamilyID    [16]byte
	ImageID     [16]byte
	GuestSVN    uint32
	Policy      uint64 // the guest policy that it must be launched with
}

// ParseBlock reads an ID block.
//
// ID block. Source: AMD 56860 (SEV-SNP Firmware ABI), SNP_LAUNCH_FINISH, ID
// Block Structure. Numbers are little-endian.
//
//	offset  size  field
//	0x00    48    LD
//	0x30    16    FAMILY_ID
//	0x40    16    IMAGE_ID
//	0x50    4     VERSION, 1
//	0x54    4     GUEST_SVN
//	0x58    8     POLICY
func ParseBlock(data []byte) (Block, error) {
	if len(data) != BlockSize {
		return Block{}, fmt.Errorf("ID block: %d bytes, want %d", len(data), BlockSize)
	}
	le := binary.LittleEndian
	if v := le.Uint32(data[0x50:]); v != blockVersion {
		return Block{}, fmt.Errorf("ID block: VERSION (bytes 0x50 to 0x53): %d, want %d", v, blockVersion)
	}
	return Block{
		Measurement: measure.Digest(data[0x00:]),
		FamilyID:    [16]byte(data[0x30:]),
		ImageID:     [16]byte(data[0x40:]),
		GuestSVN:    le.Uint32(data[0x54:]),
		Policy:      le.Uint64(data[0x58:]),
	}, nil
}

// Encode returns the block as the firmware reads it.
func (b Block) Encode() [BlockSize]byte {
	var data [BlockSize]byte
	le := binary.LittleEndian
	copy(data[0x00:], b.Measurement[:])
	copy(data[0x30:], b.FamilyID[:])
	copy(data[0x40:], b.ImageID[:])
	le.PutUint32(data[0x50:], blockVersion)
	le.PutUint32(data[0x54:], b.GuestSVN)
	le.PutUint64(data[0x58:], b.Policy)
	return data
}

// Check reports what makes a block that no launch can match, joined.
func (b Block) Check() error {
	var errs []error
	if b.Measurement == (measure.Digest{}) {
		errs = append(errs, errors.New("ID block: LD is zero: no launch has that digest"))
	}
	if b.Policy&policyReserved1 == 0 {
		errs = append(errs, fmt.Errorf("ID block: POLICY %#x: bit 17 is clear, and one in every guest", b.Policy))
	}
	return errors.Join(errs...)
}

// Errors by which callers may branch: what of a launch is not the block's.
var (
	ErrMeasurement = errors.New("the launch digest is not the ID block's")
	ErrPolicy      = errors.New("the guest policy is not the ID block's")
)

// Match holds a launch against the block, as the firmware does. An error wraps
// ErrMeasurement or ErrPolicy, or both.
func (b Block) Match(measurement measure.Digest, policy uint64) error {
	var errs []error
	if b.Measurement != measurement {
		errs = append(errs, fmt.Errorf("%w: LD (bytes 0x00 to 0x2f) is %v, the launch has %v", ErrMeasurement, b.Measurement, measurement))
	}
	if b.Policy != policy {
		errs = append(errs, fmt.Errorf("%w: POLICY (bytes 0x58 to 0x5f) is %#x, the launch has %#x", ErrPolicy, b.Policy, policy))
	}
	return errors.Join(errs...)
}

// KeyDigest is SHA-384 over a public key as the firmware reads it: what a
// report has in ID_KEY_DIGEST and AUTHOR_KEY_DIGEST.
type KeyDigest [48]byte

// ParseKeyDigest reads 96 hexadecimal digits. Zero is refused: a report has it
// where there is no key.
func ParseKeyDigest(s string) (KeyDigest, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(KeyDigest{}) {
		return KeyDigest{}, fmt.Errorf("%.100q is not a key's digest of %d hexadecimal digits", s, 2*len(KeyDigest{}))
	}
	if KeyDigest(b) == (KeyDigest{}) {
		return KeyDigest{}, errors.New("zero is no key's digest: a report has it where there is no key")
	}
	return KeyDigest(b), nil
}

// String returns d in lower-case hexadecimal.
func (d KeyDigest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns d in lower-case hexadecimal.
func (d KeyDigest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
