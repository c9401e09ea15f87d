package measure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

// Hash is a SHA-256, written as 64 hexadecimal digits.
type Hash [sha256.Size]byte

// ParseHash reads 64 hexadecimal digits.
func ParseHash(s string) (Hash, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Hash{}) {
		return Hash{}, fmt.Errorf("%.80q is not a SHA-256 of %d hexadecimal digits", s, 2*len(Hash{}))
	}
	return Hash(b), nil
}

// String returns h in lower-case hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns h in lower-case hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	parsed, err := ParseHash(string(text))
	if err != nil {
		return err
	}
	*h = parsed
	return nil
}

// HashOf returns the SHA-256 of what r reads.
func HashOf(r io.Reader) (Hash, error) {
	h := sha256.New()
	if _, err := io.CopyBuffer(writer{h}, r, make([]byte, 256<<10)); err != nil {
		return Hash{}, err
	}
	return Hash(h.Sum(nil)), nil
}

// writer hides what else a hash can do, so that the buffer is used.
type writer struct{ io.Writer }
