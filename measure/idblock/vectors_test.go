package idblock

import (
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure"
)

// vector is an ID block that a peer made, and what it says of its keys.
type vector struct {
	name             string
	block, auth      string // base64
	want             Block
	id, author       string // public keys, PEM
	idHash, authHash string // their digests, base64
}

func vectors(t testing.TB) []vector {
	t.Helper()
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// Peer: sev-snp-measure (Python) 8f2b337e38bc83f87cd30f3253cdfe8e3e12cc3a
	//	python3 snp-create-id-block.py --idkey id.key --authorkey author.key \
	//	    --measurement $(printf kattest | openssl dgst -sha384 -binary | base64 -w0)
	// The keys were made until X of one and Y of the other began with a zero
	// byte. testdata/sev-snp-measure.txt is the output.
	python := regexp.MustCompile(`^id-block=(.*),id-auth=(.*)\nid_key_hash: (.*)\nauthor_key: (.*)\n$`).FindStringSubmatch(read("sev-snp-measure.txt"))
	if python == nil {
		t.Fatal("testdata/sev-snp-measure.txt is not the peer's output")
	}
	return []vector{{
		name: "sev-snp-measure", block: python[1], auth: python[2], idHash: python[3], authHash: python[4],
		want: Block{Measurement: measure.Digest(sha512.Sum384([]byte("kattest"))), Policy: 0x30000},
		id: `
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEANatiUJdoU9cdYKgf9TK3/u0ZDDWFMxH
KXfjigpeho69MsrJXZMnvU+wWMotM9GrlHsN5+k+QL6r8BAMK7A54pvk5afi1UZN
jpxSly6EnWrlUZ4OBKoErCzCvzGFm1Ma`,
		author: `
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEl1fD7pxNo0PInIEv/vxbvFz8lVyWdkSU
2So3hMduIMqLxe1PYyG6VTjYzGcJL9pwAAS+75W01vsLlH1onfaFoJNHYB8fE16X
gdt08lcGMqxUtn3CGbYsBQihhOhZgMNR`,
	}, {
		// Peer: virtee/sev (Rust) 9cf2adbffa209cc5becf7ff89ffdf624e7278ced,
		// tests/id-block.rs; the keys are those of tests/measurement/test_*_key.pem
		// (openssl pkey -pubout). SHA-256 of tests/measurement/test_auth_block.bin:
		// 357559109700077566355a0fefd0fbdcfdf7f5b82de7e3ede55f8054d4bea447.
		name: "virtee/sev", block: strings.TrimSpace(read("virtee-sev.block")), auth: strings.TrimSpace(read("virtee-sev.auth")),
		idHash:   "WfssaG36T+9J84M5qndckAUcKNVzg93DuvO160sUlt87DbvcuuX+J2d6ZEggdz/i",
		authHash: "7tgRafsMteDsNHlPEo/U4MSkb2fGWhrfqB/LJLzAiMJyNpt//D6ytq9qQoShs2xf",
		want: Block{
			Measurement: digest(t, "a14d638341e5674628fe1e02fbedebe5e5ab4faf1dd72d8966068e615bb99efd13d214b35c231715b38e263dc6059745"),
			Policy:      0x30000,
		},
		id: `
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE9nY+TSYJzxss8i8syLjKTPVdRww8I1Us
k7Foh0OQ3ZXLP97oR933n/Ke+7iAPG0fzNeo0Ee5zcHHULEZCr5tHa03qN7LFDJ7
dmYZ9xJgfP0NOIU8UNqbzQgLNTick74+`,
		author: `
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEYnDHi9aQTNEzYpmiW5hzanHOkv7wdJTX
LLKLBzyDD59WSvelwcb/xaNJc9XaRYaMhjx5MKLJhEinehAIgQLiqV+TCM0+VrVZ
t/06zIizzCoZd0NI/qLyyQMRkeBxh6z1`,
	}}
}

func digest(t testing.TB, s string) measure.Digest {
	t.Helper()
	d, err := measure.ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func publicKey(t testing.TB, body string) PublicKey {
	t.Helper()
	block, _ := pem.Decode([]byte("-----BEGIN PUBLIC KEY-----" + body + "\n-----END PUBLIC KEY-----\n"))
	if block == nil {
		t.Fatal("not PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.name, func(t *testing.T) {
			s, err := Open([]byte(v.block), []byte(v.auth+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v.want, s.Block); diff != "" {
				t.Errorf("block (-peer +ours):\n%s", diff)
			}
			if got := v.want.base64(); got != v.block {
				t.Errorf("block %s, the peer has %s", got, v.block)
			}
			if s.Auth.IDKey != publicKey(t, v.id) || s.Auth.AuthorKey != publicKey(t, v.author) {
				t.Error("the keys are encoded otherwise")
			}
			if got := s.Auth.base64(); got != v.auth {
				t.Error("the authentication is encoded otherwise")
			}
			for key, want := range map[PublicKey]string{s.Auth.IDKey: v.idHash, s.Auth.AuthorKey: v.authHash} {
				got := key.Digest()
				if base64.StdEncoding.EncodeToString(got[:]) != want {
					t.Errorf("key digest %v, the peer has %s", got, want)
				}
			}
			if got, want := s.QEMU(), "id-block="+v.block+",id-auth="+v.auth+",author-key-enabled=on"; got != want {
				t.Errorf("QEMU's properties:\n%s\nwant\n%s", got, want)
			}
			block, auth := s.Block.Encode(), s.Auth.Encode()
			if again, err := Open(block[:], auth[:]); err != nil || again != s {
				t.Errorf("from the binary form: %v", err)
			}
		})
	}
}
