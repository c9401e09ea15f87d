package idblock

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

// MaxFile is the size of the largest file that Open takes, in bytes.
const MaxFile = 8 << 10

// Signed is an ID block and what authenticates it. In JSON both are base64, as
// in QEMU's arguments.
type Signed struct {
	Block Block `json:"block"`
	Auth  Auth  `json:"auth"`
}

// Open reads the two files of an ID block as Parse does, and checks the
// signatures.
func Open(block, auth []byte) (Signed, error) {
	s, err := Parse(block, auth)
	if err != nil {
		return Signed{}, err
	}
	if err := s.Verify(); err != nil {
		return Signed{}, err
	}
	return s, nil
}

// Parse reads the two files of an ID block, each in the firmware's form or in
// base64. It checks no signature.
func Parse(block, auth []byte) (Signed, error) {
	b, errB := readBlock(block)
	a, errA := readAuth(auth)
	if err := errors.Join(errB, errA); err != nil {
		return Signed{}, err
	}
	return Signed{b, a}, nil
}

// Verify checks the signatures, see Auth.Verify.
func (s Signed) Verify() error { return s.Auth.Verify(s.Block) }

// QEMU returns the properties of QEMU's object sev-snp-guest. There is no comma
// in base64, so that nothing is escaped.
// Source: QEMU 10.0.2, qapi/qom.json, SevSnpGuestProperties, and
// target/i386/sev.c, which wants 96 bytes of id-block. KVM reads 4096 of
// id-auth whatever QEMU was given.
func (s Signed) QEMU() string {
	properties := fmt.Sprintf("id-block=%s,id-auth=%s", s.Block.base64(), s.Auth.base64())
	if s.Auth.HasAuthor() {
		properties += ",author-key-enabled=on"
	}
	return properties
}

// readBlock and readAuth tell the two forms apart by size.
func readBlock(data []byte) (b Block, err error) {
	if len(data) == BlockSize {
		return ParseBlock(data)
	}
	err = b.UnmarshalText(bytes.TrimSpace(data))
	return b, err
}

func readAuth(data []byte) (a Auth, err error) {
	if len(data) == AuthSize {
		return ParseAuth(data)
	}
	err = a.UnmarshalText(bytes.TrimSpace(data))
	return a, err
}

func (b Block) base64() string {
	data := b.Encode()
	return base64.StdEncoding.EncodeToString(data[:])
}

func (a Auth) base64() string {
	data := a.Encode()
	return base64.StdEncoding.EncodeToString(data[:])
}

// MarshalText returns the block in base64, as QEMU takes it.
func (b Block) MarshalText() ([]byte, error) { return []byte(b.base64()), nil }

// UnmarshalText reads a block in base64.
func (b *Block) UnmarshalText(text []byte) error {
	data, err := decode(text, BlockSize)
	if err != nil {
		return fmt.Errorf("ID block: %w", err)
	}
	parsed, err := ParseBlock(data)
	*b = parsed
	return err
}

// MarshalText returns the structure in base64, as QEMU takes it.
func (a Auth) MarshalText() ([]byte, error) { return []byte(a.base64()), nil }

// UnmarshalText reads the structure in base64. It checks no signature.
func (a *Auth) UnmarshalText(text []byte) error {
	data, err := decode(text, AuthSize)
	if err != nil {
		return fmt.Errorf("ID auth: %w", err)
	}
	parsed, err := ParseAuth(data)
	*a = parsed
	return err
}

// decode reads the one base64 form of size bytes. The library would pass over
// line ends inside.
func decode(text []byte, size int) ([]byte, error) {
	if want := base64.StdEncoding.EncodedLen(size); len(text) != want {
		return nil, fmt.Errorf("%d bytes, want %d, or %d of base64", len(text), size, want)
	}
	if i := bytes.IndexAny(text, "\r\n"); i >= 0 {
		return nil, fmt.Errorf("byte 0x%03x: a line end in base64", i)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return nil, err
	}
	if len(data) != size {
		return nil, fmt.Errorf("%d bytes in base64, want %d", len(data), size)
	}
	return data, nil
}
