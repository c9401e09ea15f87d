package igvm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// testKey is a key whose scalar is 48 times one byte.
func testKey(t testing.TB, scalar byte) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), bytes.Repeat([]byte{scalar}, 48))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// publicKey is a key as an SNP_ID_BLOCK has it.
func publicKey(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 152)
	b[0] = 2
	for i := range 48 {
		b[8+i] = point[1+47-i]
		b[80+i] = point[1+48+47-i]
	}
	return b
}

// signature is a signature as an SNP_ID_BLOCK has it: of RFC 6979, as
// igvmmeasure makes it.
func signature(t testing.TB, key *ecdsa.PrivateKey, message []byte) []byte {
	t.Helper()
	digest := sha512.Sum384(message)
	der, err := key.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &v); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 144)
	for i, n := range []*big.Int{v.R, v.S} {
		little := n.FillBytes(make([]byte, 48))
		slices.Reverse(little)
		copy(b[72*i:], little)
	}
	return b
}

// sign adds an ID block for a digest, signed by the key 1 and, if asked for, by
// the author's, 2; as igvmmeasure does.
func (b *builder) sign(t testing.TB, ld measure.Digest, policy uint64, author bool) *builder {
	t.Helper()
	block := make([]byte, 96)
	copy(block, ld[:])
	block[0x50] = 1
	for i := range 8 {
		block[0x58+i] = byte(policy >> (8 * i))
	}
	id := testKey(t, 1)
	idKey := publicKey(t, id)
	authorSignature, authorKey, enabled := make([]byte, 144), make([]byte, 152), uint8(0)
	if author {
		signed := make([]byte, 1028)
		copy(signed, idKey[:4])
		copy(signed[4:], idKey[8:])
		authorSignature, authorKey, enabled = signature(t, testKey(t, 2), signed), publicKey(t, testKey(t, 2)), 1
	}
	return b.add(0x30b, uint32(snp), enabled, [3]byte{}, [48]byte(ld), [32]byte{},
		uint32(1), uint32(0), uint32(1), uint32(1), signature(t, id, block), idKey, authorSignature, authorKey)
}

// plainLD is plain's digest with one vCPU.
func plainLD(t testing.TB) measure.Digest {
	t.Helper()
	d, err := measure.ParseDigest(plainDigest)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const plainDigest = "226a42f40ece0bbf85fba8cdb3f9b41a1771aaba0edaf50dfa86bdfa1212fd55c466ddfd89845f3e58f6794521411221"

// Files that igvmmeasure signed, of the keys of testKey; commit as in peer_test.go:
//
//	igvmmeasure plain.igvm sign --output FILE --id-key id.pem [--author-key author.pem]
//
// The builder makes the same bytes.
func TestIDBlockOfPeer(t *testing.T) {
	for _, tt := range []struct {
		author bool
		sum    string
	}{
		{false, "7efe47a3c5a7eee66f51d9666f7d46212a9d330c7fa304aba91c27ff0c30a1d3"},
		{true, "0329f12a0c86a9b11cedf9654732ba881978023244c607a9a034b8325ac49607"},
	} {
		file := plain().sign(t, plainLD(t), 0x30000, tt.author).build()
		if sum := sha256.Sum256(file); hex.EncodeToString(sum[:]) != tt.sum {
			t.Errorf("author %v: the file has SHA-256 %x, igvmmeasure's %s", tt.author, sum, tt.sum)
		}
		f := mustOpen(t, file)
		d, err := mustLoad(t, file, QEMU).Measure(1, measure.CPU{})
		if err != nil || d.String() != plainDigest {
			t.Errorf("author %v: %v, %v, want %s", tt.author, d, err, plainDigest)
		}
		if err := f.Check(d); err != nil {
			t.Errorf("author %v: %v", tt.author, err)
		}
		if got := f.IDBlock().Auth.HasAuthor(); got != tt.author {
			t.Errorf("an author's key: %v, want %v", got, tt.author)
		}
		if p := f.IDBlock().Block.Policy; p != 0x30000 {
			t.Errorf("policy %#x, want the file's, 0x30000", p)
		}
	}
}

func TestIDBlockDoesNotHold(t *testing.T) {
	ld := plainLD(t)
	flip := func(b *builder, at int) *builder {
		b.headers[len(b.headers)-1].body[at] ^= 1
		return b
	}
	for _, tt := range []struct {
		name string
		file *builder
		want error
	}{
		{"another digest", plain().sign(t, measure.Digest{1}, 0x30000, true), idblock.ErrMeasurement},
		{"another policy", plain().sign(t, ld, 0x20000, true), idblock.ErrSignature},
		{"SVN is not signed", flip(plain().sign(t, ld, 0x30000, true), 0x5c), idblock.ErrSignature},
		{"the author's signature", flip(plain().sign(t, ld, 0x30000, true), 0x190), idblock.ErrSignature},
		{"no policy", free().sign(t, ld, 0, false), ErrNoPolicy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := mustOpen(t, tt.file.build()).Check(ld); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
	if err := mustOpen(t, plain().build()).Check(measure.Digest{}); err != nil {
		t.Errorf("a file without an ID block: %v", err)
	}
	// Another platform's is not looked at.
	other := plain().sign(t, ld, 0x30000, false)
	other.headers[len(other.headers)-1].body[0] = vsm
	if f := mustOpen(t, other.build()); f.IDBlock() != nil {
		t.Error("an ID block of another platform counts")
	}
}
