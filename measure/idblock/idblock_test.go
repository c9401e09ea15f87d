package idblock

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/measure"
)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sample() Block {
	return Block{
		Measurement: measure.Digest{1, 2, 3}, FamilyID: [16]byte{4}, ImageID: [16]byte{5},
		GuestSVN: 0x01020304, Policy: 0x30133,
	}
}

func TestSign(t *testing.T) {
	id, author := newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	b := sample()
	for _, tt := range []struct {
		name   string
		author crypto.Signer
		algo   byte
	}{{"with an author", author, 1}, {"without", nil, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Sign(b, id, tt.author)
			if err != nil {
				t.Fatal(err)
			}
			if a.HasAuthor() != (tt.author != nil) {
				t.Errorf("HasAuthor %v", a.HasAuthor())
			}
			data := a.Encode()
			if data[4] != tt.algo {
				t.Errorf("AUTHOR_KEY_ALGO %d, want %d", data[4], tt.algo)
			}
			parsed, err := ParseAuth(data[:])
			if err != nil || parsed != a {
				t.Fatalf("does not parse to itself: %v", err)
			}
			if err := parsed.Verify(b); err != nil {
				t.Error(err)
			}
			if strings.Contains(Signed{b, a}.QEMU(), "author-key-enabled=on") != (tt.author != nil) {
				t.Error("author-key-enabled")
			}
			// Each bit of the block is signed.
			block := b.Encode()
			for i := range block {
				changed := block
				changed[i] ^= 0x80
				other, err := ParseBlock(changed[:])
				if i >= 0x50 && i < 0x54 {
					if err == nil || other != (Block{}) {
						t.Errorf("another VERSION: %v, %v", other, err)
					}
					continue
				}
				if err := a.Verify(other); !errors.Is(err, ErrSignature) {
					t.Errorf("byte %#x: %v, want %v", i, err, ErrSignature)
				}
			}
		})
	}
}

// liar signs with another key than it shows, or with something else.
type liar struct {
	crypto.Signer
	sign func(digest []byte) ([]byte, error)
}

func (l liar) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return l.sign(digest)
}

func TestSignRefuses(t *testing.T) {
	id, other, p256 := newKey(t, elliptic.P384()), newKey(t, elliptic.P384()), newKey(t, elliptic.P256())
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	down := errors.New("the HSM is down")
	zero, bit17 := sample(), sample()
	zero.Measurement, bit17.Policy = measure.Digest{}, 0x10000
	for _, tt := range []struct {
		name       string
		block      Block
		id, author crypto.Signer
		want       string
	}{
		{"P-256", sample(), p256, nil, "ID key: an ECDSA key on P-256, want one on P-384"},
		{"Ed25519 author", sample(), id, ed, "author's key: a key of type ed25519.PublicKey"},
		{"no digest", zero, id, nil, "LD is zero"},
		{"bit 17", bit17, id, nil, "POLICY 0x10000: bit 17 is clear"},
		{"down", sample(), liar{id, func([]byte) ([]byte, error) { return nil, down }}, nil, "the HSM is down"},
		{"another key", sample(), liar{id, func(d []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, other, d) }}, nil, "does not hold"},
		{"another author", sample(), id, liar{other, func(d []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, id, d) }}, "ID_KEY_SIG"},
		{"not ASN.1", sample(), liar{id, func([]byte) ([]byte, error) { return make([]byte, 96), nil }}, nil, "not an ECDSA signature"},
		{"more behind", sample(), liar{id, func(d []byte) ([]byte, error) {
			der, err := ecdsa.SignASN1(rand.Reader, id, d)
			return append(der, 0), err
		}}, nil, "not an ECDSA signature"},
		{"zero", sample(), liar{id, func([]byte) ([]byte, error) { return []byte{0x30, 6, 2, 1, 0, 2, 1, 0}, nil }}, nil, "another curve"},
		{"too large", sample(), liar{id, func([]byte) ([]byte, error) {
			return append([]byte{0x30, 54, 2, 1, 1, 2, 49, 0}, bytes.Repeat([]byte{0xff}, 48)...), nil
		}}, nil, "another curve"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Sign(tt.block, tt.id, tt.author)
			if err == nil || !strings.Contains(err.Error(), tt.want) || a != (Auth{}) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestParseAuthRefuses(t *testing.T) {
	id, author := newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	a, err := Sign(sample(), id, author)
	if err != nil {
		t.Fatal(err)
	}
	alone, err := Sign(sample(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	set := func(offset int, value ...byte) func([]byte) { return func(b []byte) { copy(b[offset:], value) } }
	clear48 := func(offset int) func([]byte) { return func(b []byte) { clear(b[offset : offset+48]) } }
	for _, tt := range []struct {
		name   string
		of     Auth
		change func([]byte)
		want   string
	}{
		{"ID_KEY_ALGO", a, set(0, 2), "ID_KEY_ALGO (bytes 0x000 to 0x003): 2, want 1"},
		{"ID_KEY_ALGO, high", a, set(3, 1), "ID_KEY_ALGO (bytes 0x000 to 0x003): 16777217"},
		{"AUTHOR_KEY_ALGO", a, set(4, 2), "AUTHOR_KEY_ALGO (bytes 0x004 to 0x007): 2, want 1"},
		{"author denied", a, set(4, 0), "0, but there is an ID_KEY_SIG or AUTHOR_KEY"},
		{"author claimed", alone, set(4, 1), "AUTHOR_KEY (bytes 0x880 to 0xc83): CURVE (bytes 0x000 to 0x003): 0, want 2"},
		{"reserved, first", a, set(0x08, 1), "byte 0x008: reserved (0x008 to 0x03f), but 0x01"},
		{"reserved, second", a, set(0x67f, 1), "byte 0x67f: reserved (0x644 to 0x67f)"},
		{"reserved, third", a, set(0xfff, 1), "byte 0xfff: reserved (0xc84 to 0xfff)"},
		{"reserved of a signature", a, set(0x040+0x1ff, 1), "ID_BLOCK_SIG (bytes 0x040 to 0x23f): byte 0x1ff: reserved"},
		{"reserved of a key", a, set(0x240+0x403, 1), "ID_KEY (bytes 0x240 to 0x643): byte 0x403: reserved"},
		{"long R", a, set(0x040+48, 1), "ID_BLOCK_SIG (bytes 0x040 to 0x23f): R: byte 0x030: reserved (0x030 to 0x047)"},
		{"long S", a, set(0x680+0x8f, 1), "ID_KEY_SIG (bytes 0x680 to 0x87f): S: byte 0x08f: reserved (0x078 to 0x08f)"},
		{"long QX", a, set(0x240+0x4b, 1), "ID_KEY (bytes 0x240 to 0x643): QX: byte 0x04b: reserved"},
		{"long QY", a, set(0x880+0x93, 1), "AUTHOR_KEY (bytes 0x880 to 0xc83): QY: byte 0x093: reserved"},
		{"R zero", a, clear48(0x040), "R (bytes 0x000 to 0x047): not between 1 and the order of P-384"},
		{"S too large", a, set(0x040+0x48, bytes.Repeat([]byte{0xff}, 48)...), "S (bytes 0x048 to 0x08f): not between 1 and the order of P-384"},
		{"curve", a, set(0x240, 1), "ID_KEY (bytes 0x240 to 0x643): CURVE (bytes 0x000 to 0x003): 1, want 2"},
		{"not on the curve", a, func(b []byte) { b[0x244] ^= 1 }, "QX, QY (bytes 0x004 to 0x093): not a point on P-384"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := tt.of.Encode()
			tt.change(data[:])
			got, err := ParseAuth(data[:])
			if err == nil || !strings.Contains(err.Error(), tt.want) || got != (Auth{}) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
	// All that is wrong is told together.
	data := a.Encode()
	data[0], data[8], data[0x240] = 9, 9, 9
	_, err = ParseAuth(data[:])
	for _, want := range []string{"ID_KEY_ALGO", "byte 0x008", "CURVE"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// A flipped bit of either signature, and keys that change places.
func TestVerifyRefuses(t *testing.T) {
	id, author := newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	good, err := Sign(sample(), id, author)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Auth)
		want   string
	}{
		{"block signature", func(a *Auth) { a.BlockSignature[0] ^= 1 }, "ID_BLOCK_SIG"},
		{"key signature", func(a *Auth) { a.KeySignature[0x48] ^= 1 }, "ID_KEY_SIG"},
		{"signatures change places", func(a *Auth) { a.BlockSignature, a.KeySignature = a.KeySignature, a.BlockSignature }, "ID_BLOCK_SIG"},
		{"the author is the ID key", func(a *Auth) { a.AuthorKey = a.IDKey }, "ID_KEY_SIG"},
		{"the ID key is the author", func(a *Auth) { a.IDKey = a.AuthorKey }, "ID_BLOCK_SIG"},
		{"the author is gone", func(a *Auth) { a.AuthorKey = PublicKey{} }, "ID_KEY_SIG: there is no author's key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := good
			tt.change(&a)
			if err := a.Verify(sample()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	b := sample()
	other := measure.Digest{9}
	for _, tt := range []struct {
		name         string
		ld           measure.Digest
		policy       uint64
		ldBad, polyB bool
	}{
		{"same", b.Measurement, b.Policy, false, false},
		{"digest", other, b.Policy, true, false},
		{"policy", b.Measurement, b.Policy | 1<<19, false, true},
		{"both", other, 0, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := b.Match(tt.ld, tt.policy)
			if errors.Is(err, ErrMeasurement) != tt.ldBad || errors.Is(err, ErrPolicy) != tt.polyB {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	v := vectors(t)
	block, auth := v[0].block, v[0].auth
	for _, tt := range []struct{ name, block, auth, want string }{
		{"empty", "", auth, "ID block: 0 bytes, want 96, or 128 of base64"},
		{"the files change places", auth, block, "ID auth: 128 bytes, want 4096, or 5464 of base64"},
		{"not base64", "!" + block[1:], auth, "ID block: illegal base64 data at input byte 0"},
		{"line end inside", block, auth[:8] + "\n" + auth[9:], "byte 0x008: a line end in base64"},
		{"trailing bits", block, auth[:5461] + "B==", "illegal base64 data"},
		{"another's block", v[1].block, auth, "ID_BLOCK_SIG: the signature does not hold"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Open([]byte(tt.block), []byte(tt.auth))
			if err == nil || !strings.Contains(err.Error(), tt.want) || s != (Signed{}) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	v := vectors(t)[0]
	s, err := Open([]byte(v.block), []byte(v.auth))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"block":"` + v.block + `","auth":"` + v.auth + `"}`; string(data) != want {
		t.Errorf("got %s, want %s", data, want)
	}
	var again Signed
	if err := json.Unmarshal(data, &again); err != nil || again != s {
		t.Errorf("not read back: %v", err)
	}
}

func TestParseKeyDigest(t *testing.T) {
	d := sha512.Sum384([]byte("key"))
	if got, err := ParseKeyDigest(hex.EncodeToString(d[:])); err != nil || got != d {
		t.Errorf("%v, %v", got, err)
	}
	for s, want := range map[string]string{
		strings.Repeat("0", 96): "zero is no key's digest",
		strings.Repeat("a", 95): "96 hexadecimal digits",
		strings.Repeat("g", 96): "96 hexadecimal digits",
	} {
		if got, err := ParseKeyDigest(s); err == nil || !strings.Contains(err.Error(), want) || got != (KeyDigest{}) {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
}

func FuzzParseBlock(f *testing.F) {
	b := sample().Encode()
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBlock(data)
		if err != nil {
			if b != (Block{}) {
				t.Fatal("an error with a block")
			}
			return
		}
		if again := b.Encode(); !bytes.Equal(again[:], data) {
			t.Fatal("does not re-encode to itself")
		}
	})
}

func FuzzParseAuth(f *testing.F) {
	for _, v := range vectors(f) {
		data, err := base64.StdEncoding.DecodeString(v.auth)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	a, err := Sign(sample(), newKey(f, elliptic.P384()), nil)
	if err != nil {
		f.Fatal(err)
	}
	alone := a.Encode()
	f.Add(alone[:])
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAuth(data)
		if err != nil {
			if a != (Auth{}) {
				t.Fatal("an error with a value")
			}
			return
		}
		if again := a.Encode(); !bytes.Equal(again[:], data) {
			t.Fatal("does not re-encode to itself")
		}
		_ = a.Verify(sample()) // must not panic
	})
}
