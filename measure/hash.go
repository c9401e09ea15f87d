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
	if _, err := io.CopyBuffer(h, reader{r}, make([]byte, 128<<10)); err != nil {
		return Hash{}, err
	}
	return Hash(h.Sum(nil)), nil
}

// reader hides what else a file can do, so that the buffer is used: larger than
// io.Copy's, and small enough to stay in the processor's cache.
type reader struct{ io.Reader }
