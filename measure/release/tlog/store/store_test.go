package store_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/release/tlog"
	"github.com/kraudcloud/kattest/measure/release/tlog/store"
)

const origin = "log.example.org"

func logKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newLog makes a log, and returns where, and its key.
func newLog(t testing.TB) (string, ed25519.PrivateKey) {
	t.Helper()
	dir, key := filepath.Join(t.TempDir(), "log"), logKey(t)
	if _, err := store.Init(t.Context(), dir, origin, key); err != nil {
		t.Fatal(err)
	}
	return dir, key
}

// sign returns a bundle of a statement that has nothing but a number.
func sign(t testing.TB, key crypto.Signer, n int) []byte {
	t.Helper()
	b, err := release.SignStatement(fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"%064x"}}],"predicateType":"https://example.org/v1"}`, n), key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func leaf(t testing.TB, b []byte, key crypto.Signer) []byte {
	t.Helper()
	l, err := tlog.Leaf(b, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// add logs bundles, and returns them with their proofs.
func add(t testing.TB, dir string, key crypto.Signer, by crypto.Signer, bundles ...[]byte) [][]byte {
	t.Helper()
	l, err := store.Open(t.Context(), dir, key)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var leaves [][]byte
	for _, b := range bundles {
		leaves = append(leaves, leaf(t, b, by))
	}
	tree, indexes, err := l.Add(t.Context(), leaves)
	if err != nil {
		t.Fatal(err)
	}
	var logged [][]byte
	for i, b := range bundles {
		out, err := tree.Attach(b, leaves[i], indexes[i])
		if err != nil {
			t.Fatal(err)
		}
		logged = append(logged, out)
	}
	return logged
}

func trustedRoot(t testing.TB, dir string) ([]byte, []tlog.Log) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, store.TrustedRootPath))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := tlog.ParseTrustedRoot(text)
	if err != nil {
		t.Fatal(err)
	}
	return text, logs
}

// material is what sigstore-go is told of the log and of the key.
func material(t testing.TB, trusted []byte, key crypto.PublicKey) root.TrustedMaterial {
	t.Helper()
	parsed, err := root.NewTrustedRootFromJSON(trusted)
	if err != nil {
		t.Fatal(err)
	}
	v, err := signature.LoadDefaultVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	always := root.NewExpiringKey(v, time.Time{}, time.Time{})
	return root.TrustedMaterialCollection{parsed, root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return always, nil })}
}

// stock is sigstore-go's own verifier.
func stock(t testing.TB, trusted []byte, key crypto.PublicKey, data []byte) error {
	t.Helper()
	verifier, err := verify.NewVerifier(material(t, trusted, key), verify.WithTransparencyLog(1), verify.WithNoObserverTimestamps())
	if err != nil {
		t.Fatal(err)
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(data); err != nil {
		return err
	}
	_, err = verifier.Verify(&b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithKey()))
	return err
}

// Every kind of key that a log takes, by our verifier and by sigstore's.
func TestStockVerifier(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir, key := newLog(t)
	text, logs := trustedRoot(t, dir)
	for name, by := range map[string]crypto.Signer{
		"P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "P-521": ecKey(t, elliptic.P521()), "RSA": rsaKey,
	} {
		b := sign(t, by, 1)
		logged := add(t, dir, key, by, b)[0]
		if _, err := tlog.Check(logged, by.Public(), logs); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := stock(t, text, by.Public(), logged); err != nil {
			t.Errorf("%s: sigstore-go: %v", name, err)
		}
		if _, err := tlog.Check(b, by.Public(), logs); !errors.Is(err, tlog.ErrNotLogged) || !errors.Is(err, release.ErrSignature) {
			t.Errorf("%s, not logged: %v", name, err)
		}
		if err := stock(t, text, by.Public(), b); err == nil {
			t.Errorf("%s, not logged: sigstore-go takes it", name)
		}
	}
	plain := logKey(t)
	if _, err := tlog.Leaf(sign(t, plain, 1), plain.Public()); !errors.Is(err, tlog.ErrKey) {
		t.Errorf("Ed25519: %v", err)
	}
}

// What is damaged in a proof is refused by both verifiers.
func TestCheckRefuses(t *testing.T) {
	dir, key := newLog(t)
	by := ecKey(t, elliptic.P256())
	text, logs := trustedRoot(t, dir)
	add(t, dir, key, by, sign(t, by, 0), sign(t, by, 1), sign(t, by, 2))
	logged := add(t, dir, key, by, sign(t, by, 3), sign(t, by, 4))
	otherDir, otherKey := newLog(t)
	foreign := add(t, otherDir, otherKey, by, sign(t, by, 3))[0]

	for _, tt := range []struct {
		name, want string
		edit       func(*protobundle.Bundle)
		ours       bool // sigstore-go does not look at this
	}{
		{"body", "canonicalizedBody", func(b *protobundle.Bundle) { entry(b).CanonicalizedBody = entry(parse(t, logged[1])).CanonicalizedBody }, true},
		{"signature of another", "canonicalizedBody", func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Signatures = parse(t, logged[1]).GetDsseEnvelope().Signatures
		}, false},
		{"entry of another", "canonicalizedBody", func(b *protobundle.Bundle) {
			b.GetVerificationMaterial().TlogEntries = parse(t, logged[1]).GetVerificationMaterial().TlogEntries
		}, false},
		{"index", "logIndex: 4", func(b *protobundle.Bundle) { entry(b).InclusionProof.LogIndex++ }, true},
		{"both indexes", "hashes", func(b *protobundle.Bundle) { entry(b).LogIndex++; entry(b).InclusionProof.LogIndex++ }, false},
		{"beyond the tree", "logIndex: 9", func(b *protobundle.Bundle) { entry(b).LogIndex = 9; entry(b).InclusionProof.LogIndex = 9 }, false},
		{"negative", "logIndex: -1", func(b *protobundle.Bundle) { entry(b).LogIndex = -1; entry(b).InclusionProof.LogIndex = -1 }, false},
		{"hash", "hashes", func(b *protobundle.Bundle) { entry(b).InclusionProof.Hashes[0][0] ^= 1 }, false},
		{"hash cut", "hashes[0]: 31 bytes", func(b *protobundle.Bundle) {
			entry(b).InclusionProof.Hashes[0] = entry(b).InclusionProof.Hashes[0][:31]
		}, false},
		{"a hash less", "hashes", func(b *protobundle.Bundle) {
			entry(b).InclusionProof.Hashes = entry(b).InclusionProof.Hashes[1:]
		}, false},
		{"size", "treeSize", func(b *protobundle.Bundle) { entry(b).InclusionProof.TreeSize++ }, true},
		{"root", "rootHash", func(b *protobundle.Bundle) { entry(b).InclusionProof.RootHash[0] ^= 1 }, true},
		{"no proof", "inclusionProof: missing", func(b *protobundle.Bundle) { entry(b).InclusionProof = nil }, false},
		{"no checkpoint", "checkpoint", func(b *protobundle.Bundle) { entry(b).InclusionProof.Checkpoint = nil }, false},
		{"checkpoint", "checkpoint", func(b *protobundle.Bundle) {
			c := entry(b).InclusionProof.Checkpoint
			c.Envelope = strings.Replace(c.Envelope, "\n5\n", "\n6\n", 1)
		}, false},
		{"another's checkpoint", "checkpoint", func(b *protobundle.Bundle) {
			entry(b).InclusionProof.Checkpoint = entry(parse(t, foreign)).InclusionProof.Checkpoint
		}, false},
		{"kind", "kindVersion", func(b *protobundle.Bundle) { entry(b).KindVersion.Kind = "dsse" }, true},
		{"another log", "none of the trusted logs", func(b *protobundle.Bundle) { entry(b).LogId.KeyId[0] ^= 1 }, false},
		{"one good, one bad", "tlogEntries[1]", func(b *protobundle.Bundle) {
			bad := entry(parse(t, logged[0]))
			bad.InclusionProof.Hashes[0][0] ^= 1
			b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, bad)
		}, false},
		{"many", "more than 32", func(b *protobundle.Bundle) {
			for range 33 {
				b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, entry(b))
			}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := parse(t, logged[0])
			tt.edit(b)
			data, err := protojson.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			in, err := tlog.Check(data, by.Public(), logs)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !cmp.Equal(in, tlog.Inclusion{}) {
				t.Errorf("%v, %v", in, err)
			}
			if err := stock(t, text, by.Public(), data); (err == nil) != tt.ours {
				t.Errorf("sigstore-go: %v", err)
			}
		})
	}
	if _, err := tlog.Check(foreign, by.Public(), logs); !errors.Is(err, tlog.ErrNotLogged) {
		t.Errorf("in another log of that name: %v", err)
	}
	if _, err := tlog.Check(logged[0], ecKey(t, elliptic.P256()).Public(), logs); !errors.Is(err, release.ErrSignature) {
		t.Errorf("another key: %v", err)
	}
}

func entry(b *protobundle.Bundle) *protorekor.TransparencyLogEntry {
	return b.GetVerificationMaterial().GetTlogEntries()[0]
}

func parse(t testing.TB, data []byte) *protobundle.Bundle {
	t.Helper()
	b, err := release.ParseBundle(data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Added again, nothing grows, in whatever order and however often one is named.
func TestAddTwice(t *testing.T) {
	dir, key := newLog(t)
	by := ecKey(t, elliptic.P256())
	a, b := sign(t, by, 1), sign(t, by, 2)
	_, logs := trustedRoot(t, dir)
	add(t, dir, key, by, a, a)
	logged := add(t, dir, key, by, b, a)
	for i, want := range []int64{1, 0} {
		in, err := tlog.Check(logged[i], by.Public(), logs)
		if err != nil || in.Index != want || in.Checkpoint.Size != 2 {
			t.Errorf("%+v, %v", in, err)
		}
	}
}

// More than one tile, by several calls: each proof holds, and the log shows it all.
func TestManyEntries(t *testing.T) {
	dir, key := newLog(t)
	by := ecKey(t, elliptic.P256())
	_, logs := trustedRoot(t, dir)
	size := 0
	for _, n := range []int{1, 254, 1, 1, 300} {
		var bundles [][]byte
		for range n {
			bundles = append(bundles, sign(t, by, size))
			size++
		}
		for _, b := range add(t, dir, key, by, bundles...) {
			in, err := tlog.Check(b, by.Public(), logs)
			if err != nil || in.Checkpoint.Size != int64(size) {
				t.Fatalf("%+v, %v", in.Checkpoint, err)
			}
		}
	}
	seen := int64(0)
	source := open(t, dir)
	c, err := tlog.Monitor(t.Context(), source, logs[0], nil, 0, func(e tlog.Entry) error {
		if e.Index != seen || len(e.Key) == 0 || len(e.Digest) != 32 {
			t.Fatalf("%+v at %d", e, seen)
		}
		seen++
		return nil
	})
	if err != nil || c.Size != int64(size) || seen != c.Size {
		t.Errorf("%+v, %d entries, %v", c, seen, err)
	}
}

func open(t testing.TB, dir string) tlog.Dir {
	t.Helper()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return tlog.Dir{Root: r}
}

// What would make a log forget or fork is refused, and changes nothing.
func TestOpenRefuses(t *testing.T) {
	by := ecKey(t, elliptic.P256())
	for _, tt := range []struct {
		name, want string
		damage     func(t *testing.T, dir string, key *crypto.Signer)
	}{
		{"another key", "not the log's key", func(t *testing.T, _ string, key *crypto.Signer) { *key = logKey(t) }},
		{"a key of another kind", "not the log's key", func(_ *testing.T, _ string, key *crypto.Signer) { *key = by }},
		{"no log", "no log is here", func(t *testing.T, dir string, _ *crypto.Signer) { remove(t, dir, store.TrustedRootPath) }},
		{"no state", "no such file", func(t *testing.T, dir string, _ *crypto.Signer) { remove(t, dir, ".state/treeState") }},
		{"garbled state", "treeState", func(t *testing.T, dir string, _ *crypto.Signer) { write(t, dir, ".state/treeState", "{") }},
		{"an older state", "3 were vouched for", func(t *testing.T, dir string, _ *crypto.Signer) {
			write(t, dir, ".state/treeState", `{"size":2,"root":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}`)
		}},
		{"another state", "damaged", func(t *testing.T, dir string, _ *crypto.Signer) {
			write(t, dir, ".state/treeState", `{"size":3,"root":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}`)
		}},
		{"a short root", "5 bytes", func(t *testing.T, dir string, _ *crypto.Signer) {
			write(t, dir, ".state/treeState", `{"size":3,"root":"AAAAAAA="}`)
		}},
		{"no checkpoint", "checkpoint", func(t *testing.T, dir string, _ *crypto.Signer) { remove(t, dir, "checkpoint") }},
		{"another checkpoint", "checkpoint", func(t *testing.T, dir string, _ *crypto.Signer) { write(t, dir, "checkpoint", "x") }},
		{"no tile", "damaged", func(t *testing.T, dir string, _ *crypto.Signer) { remove(t, dir, "tile/0/000.p/3") }},
		{"a damaged tile", "damaged", func(t *testing.T, dir string, _ *crypto.Signer) {
			write(t, dir, "tile/0/000.p/3", strings.Repeat("x", 96))
		}},
		{"a tile cut off", "damaged", func(t *testing.T, dir string, _ *crypto.Signer) { write(t, dir, "tile/0/000.p/3", "x") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, private := newLog(t)
			add(t, dir, private, by, sign(t, by, 1), sign(t, by, 2), sign(t, by, 3))
			key := crypto.Signer(private)
			tt.damage(t, dir, &key)
			before := content(t, dir)
			l, err := store.Open(t.Context(), dir, key)
			if err == nil || l != nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatal(err)
			}
			after := content(t, dir)
			delete(after, ".state/kattest.lock")
			delete(before, ".state/kattest.lock")
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestInitRefuses(t *testing.T) {
	there := t.TempDir()
	for name, tt := range map[string]struct {
		dir, origin string
		key         crypto.Signer
	}{
		"a folder that is there": {there, origin, logKey(t)},
		"a scheme":               {filepath.Join(there, "a"), "https://" + origin, logKey(t)},
		"a path":                 {filepath.Join(there, "a"), origin + "/x", logKey(t)},
		"a port":                 {filepath.Join(there, "a"), origin + ":80", logKey(t)},
		"upper case":             {filepath.Join(there, "a"), "Log.example.org", logKey(t)},
		"a space":                {filepath.Join(there, "a"), "log example", logKey(t)},
		"a plus":                 {filepath.Join(there, "a"), "log+example", logKey(t)},
		"nothing":                {filepath.Join(there, "a"), "", logKey(t)},
		"a key of another kind":  {filepath.Join(there, "a"), origin, ecKey(t, elliptic.P256())},
		"no parent":              {filepath.Join(there, "a", "b"), origin, logKey(t)},
	} {
		if l, err := store.Init(t.Context(), tt.dir, tt.origin, tt.key); err == nil || l.Origin != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := content(t, there); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// Stopped after Tessera took the entries, before anything was vouched for: the same
// call brings it to its end.
func TestAddInterrupted(t *testing.T) {
	dir, key := newLog(t)
	by := ecKey(t, elliptic.P256())
	_, logs := trustedRoot(t, dir)
	add(t, dir, key, by, sign(t, by, 0))
	checkpoint, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	b := sign(t, by, 1)
	add(t, dir, key, by, b)
	write(t, dir, "checkpoint", string(checkpoint)) // as it was before
	in, err := tlog.Check(add(t, dir, key, by, b)[0], by.Public(), logs)
	if err != nil || in.Index != 1 || in.Checkpoint.Size != 2 {
		t.Errorf("%+v, %v", in, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l, err := store.Open(t.Context(), dir, key)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if tree, _, err := l.Add(ctx, [][]byte{leaf(t, sign(t, by, 2), by)}); err == nil || tree != nil {
		t.Errorf("stopped: %v", err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		all[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
