package corim_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/corim"
)

func ptr[T any](v T) *T { return &v }

func everything() corim.Manifest {
	return corim.Manifest{
		ID: "release", Version: 7,
		References: []corim.Reference{
			{Measurement: measure.Digest{1}},
			{
				Measurement: measure.Digest{2}, Policy: corim.Bits{Required: 1 << 17, Forbidden: 3 << 18},
				Platform: corim.Bits{Required: 0x20}, VMPL: ptr(uint32(0)), FamilyID: &[16]byte{3}, ImageID: &[16]byte{},
				IDKey: &[48]byte{4}, AuthorKey: &[48]byte{5}, MinGuestSVN: 1<<32 - 1,
				Processors:  &corim.Processors{Family: 0x19, First: 0xa0, Last: 0xaf},
				MinReported: 1<<64 - 1, MinCommitted: 1, MinLaunch: 0x44 << 56,
			},
		},
	}
}

// small is a manifest by hand, after the CDDL of draft-ietf-rats-corim-11, with
// the tags and keys as diagnostic notation has them.
var small = strings.Join([]string{
	"d901f5 a3",              // 501({
	"00 6172",                // 0: "r",
	"01 81 d901fa 5892",      // 1: [506(<<{
	"a2",                     //
	"01 a2 00 6172 01 05",    //   1: {0: "r", 1: 5},
	"04 a1 00 81 82",         //   4: {0: [[
	"a1 00 a1 00 d86f",       //     {0: {0: 111(
	"49 2b060104019c780301",  //       h'2b060104019c780301')}},
	"84",                     //     [
	"a2 00 02 01 a1 04",      //       {0: 2, 1: {4:
	"d90233 82",              //         563([
	"48 0000020000000000",    //         h'0000020000000000',
	"48 00000e0000000000",    //         h'00000e0000000000'])}},
	"a2 00 05 01 a1 0f 00",   //       {0: 5, 1: {15: 0}},
	"a2 00 190281 01 a1 02",  //       {0: 641, 1: {2:
	"81 82 07 5830",          //         [[7,
	strings.Repeat("ab", 48), //         h'ab…ab']]}},
	"a2 00 190287 01 a1 01",  //       {0: 647, 1: {1:
	"d90229 1b",              //         553(
	"4400000000000000",       //         0x4400000000000000)}}]]]}}>>)],
	"03 d820 7822",           // 3: 32(
	hex.EncodeToString([]byte( //   "tag:amd.com,2025:snp-corim-profile")})
		"tag:amd.com,2025:snp-corim-profile")),
}, "")

func TestMarshal(t *testing.T) {
	want, err := hex.DecodeString(strings.ReplaceAll(small, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	m := corim.Manifest{ID: "r", Version: 5, References: []corim.Reference{{
		Measurement: measure.Digest(bytes.Repeat([]byte{0xab}, 48)), VMPL: ptr(uint32(0)),
		Policy: corim.Bits{Required: 1 << 17, Forbidden: 3 << 18}, MinReported: 0x44 << 56,
	}}}
	got, err := corim.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(hex.EncodeToString(want), hex.EncodeToString(got)); diff != "" {
		t.Error(diff)
	}
}

func TestRoundTrip(t *testing.T) {
	data, err := corim.Marshal(everything())
	if err != nil {
		t.Fatal(err)
	}
	got, err := corim.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everything(), got); diff != "" {
		t.Error(diff)
	}
}

func TestMarshalRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*corim.Manifest)
		want   string
	}{
		"no id":         {func(m *corim.Manifest) { m.ID = "" }, "id: "},
		"no text":       {func(m *corim.Manifest) { m.ID = "\xff" }, "id: "},
		"long id":       {func(m *corim.Manifest) { m.ID = strings.Repeat("x", 257) }, "id: "},
		"no references": {func(m *corim.Manifest) { m.References = nil }, "no reference values"},
		"a bit both set and clear": {
			func(m *corim.Manifest) { m.References[0].Policy = corim.Bits{Required: 6, Forbidden: 3} },
			"reference 0: POLICY: bits 0x2",
		},
		"VMPL 4":    {func(m *corim.Manifest) { m.References[1].VMPL = ptr(uint32(4)) }, "reference 1: VMPL: 4"},
		"no models": {func(m *corim.Manifest) { m.References[1].Processors.First = 0xff }, "reference 1: models 0xff to 0xaf"},
	} {
		t.Run(name, func(t *testing.T) {
			m := everything()
			tt.change(&m)
			if data, err := corim.Marshal(m); err == nil || data != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%x, %v; want an error with %q", data, err, tt.want)
			}
		})
	}
}

// Other encodings of the same, and other manifests, are refused.
func TestParseRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ old, with, want string }{
		"another tag":           {"d901f5a3", "d901f6a3", "corim-map"},
		"another profile":       {"32303235", "32303234", "profile"},
		"another class":         {"9c780301", "9c780302", "class-id"},
		"an unknown mkey":       {"a2000501", "a2001701", "mkey 23"},
		"an mkey twice":         {"a2000501a10f00", "a2000201a10f00", "mkey 2: stands twice"},
		"a VMPL above 3":        {"a10f00", "a10f04", "VMPL: 4"},
		"a VMPL below 0":        {"a10f00", "a10f20", "mkey 5"},
		"SHA-256":               {"81820758", "81820158", "mkey 641"},
		"a value below no mask": {"00000e0000", "00000c0000", "offset "},
		"an exact TCB":          {"d90229", "d90228", "552"},
		"a key out of order":    {"01a2006172", "02a2006172", "unknown field"},
		"another id inside":     {"01a2006172", "01a2006173", "offset "},
		"a number too long":     {"a10f00", "a10f1800", ""},
		"no mask":               {"d902338248", "d902338148", ""},
		"no end":                {"7822", "7823", ""},
		"an endless string":     {"7822", "7f22", ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.ReplaceAll(small, " ", "")
			if strings.Count(text, tt.old) != 1 {
				t.Fatalf("%q stands %d times", tt.old, strings.Count(text, tt.old))
			}
			data, err := hex.DecodeString(strings.Replace(text, tt.old, tt.with, 1))
			if err != nil {
				t.Fatal(err)
			}
			m, err := corim.Parse(data)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v; want an error with %q", err, tt.want)
			}
			if diff := cmp.Diff(corim.Manifest{}, m); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func newKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	keys := map[string]crypto.Signer{}
	for name, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = key
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pss, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys["EdDSA"], keys["PS256"] = ed, pss
	return keys
}

func TestSign(t *testing.T) {
	keys := newKeys(t)
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			data, err := corim.Sign(everything(), key)
			if err != nil {
				t.Fatal(err)
			}
			m, err := corim.Verify(data, key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(everything(), m); diff != "" {
				t.Error(diff)
			}
			if _, s, err := corim.Open(data); err != nil || s == nil || s.Algorithm != name {
				t.Errorf("%+v, %v", s, err)
			}
			for other, stranger := range newKeys(t) {
				if m, err := corim.Verify(data, stranger.Public()); !errors.Is(err, corim.ErrSignature) || m.ID != "" {
					t.Errorf("a strange key of %s: %v", other, err)
				}
			}
			for i := range data {
				damaged := bytes.Clone(data)
				damaged[i] ^= 1
				if m, err := corim.Verify(damaged, key.Public()); err == nil || m.ID != "" {
					t.Fatalf("byte %d changed: %v", i, err)
				}
			}
		})
	}
}

// liar shows another key than it signs with.
type liar struct{ crypto.Signer }

func (l liar) Public() crypto.PublicKey { return newLiarsKey.Public() }

var newLiarsKey = ed25519.NewKeyFromSeed(make([]byte, 32))

func TestSignRefuses(t *testing.T) {
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	if data, err := corim.Sign(everything(), liar{other}); err == nil || data != nil {
		t.Errorf("a key that shows another: %v", err)
	}
	odd, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := corim.Sign(everything(), odd); err == nil || data != nil {
		t.Errorf("a key on P-224: %v", err)
	}
}

func TestVerifyRefusesUnsigned(t *testing.T) {
	data, err := corim.Marshal(everything())
	if err != nil {
		t.Fatal(err)
	}
	if m, err := corim.Verify(data, newLiarsKey.Public()); !errors.Is(err, corim.ErrSignature) || m.ID != "" {
		t.Errorf("an unsigned manifest: %v", err)
	}
}

// What is read is what would be written.
func FuzzOpen(f *testing.F) {
	unsigned, err := corim.Marshal(everything())
	if err != nil {
		f.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(make([]byte, 32)) // its signatures do not differ
	signed, err := corim.Sign(everything(), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(unsigned)
	f.Add(signed)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, s, err := corim.Open(data)
		if err != nil {
			if s != nil || m.ID != "" || m.References != nil {
				t.Fatalf("%+v, %+v with error %v", m, s, err)
			}
			return
		}
		if !corim.Is(data) {
			t.Fatal("it opens, and does not look so")
		}
		if s == nil {
			again, err := corim.Marshal(m)
			if err != nil || !bytes.Equal(again, data) {
				t.Fatalf("%x, %v", again, err)
			}
		}
	})
}
