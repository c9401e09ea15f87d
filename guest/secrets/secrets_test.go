package secrets_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/secrets"
)

var (
	hostData = [32]byte{1, 2, 3}
	two      = []secrets.Secret{{Name: "password", Value: []byte("hunter2")}, {Name: "data.key", Value: []byte{0, 1, 255}, Format: true}}
)

func newKey(t testing.TB) secrets.Key {
	t.Helper()
	key, err := secrets.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(key.Public()); n != secrets.PublicKeySize {
		t.Fatalf("a public key of %d bytes", n)
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

func id(t testing.TB, key crypto.Signer) pod.Hash {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(der)
}

func seal(t testing.TB, to secrets.Key, hostData [32]byte, owner crypto.Signer) []byte {
	t.Helper()
	message, err := secrets.Seal(to.Public(), hostData, two, owner)
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func TestSeal(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	guest := newKey(t)
	for _, owner := range []crypto.Signer{ed, ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384())} {
		message := seal(t, guest, hostData, owner)
		if strings.Contains(string(message), "hunter2") || strings.Contains(string(message), "password") {
			t.Error("it is not sealed")
		}
		got, by, err := guest.Open(message, hostData, []pod.Hash{{9}, id(t, owner)})
		if err != nil || by != id(t, owner) {
			t.Fatal(by, err)
		}
		if diff := cmp.Diff(two, got); diff != "" {
			t.Error(diff)
		}
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, owner := range []crypto.Signer{weak, ecKey(t, elliptic.P521()), ecKey(t, elliptic.P224())} {
		if message, err := secrets.Seal(guest.Public(), hostData, two, owner); err == nil || message != nil {
			t.Errorf("%T signs", owner)
		}
	}
	for name, all := range map[string][]secrets.Secret{
		"none": nil, "an empty one": {{Name: "a"}}, "twice": {two[0], two[0]}, "too long": {{Name: "a", Value: make([]byte, pod.MaxSecret+1)}},
		"too many": make([]secrets.Secret, pod.MaxSecrets+1),
	} {
		if message, err := secrets.Seal(guest.Public(), hostData, all, ed); err == nil || message != nil {
			t.Errorf("%s: sealed", name)
		}
	}
	if _, err := secrets.Seal(guest.Public()[1:], hostData, two, ed); err == nil {
		t.Error("to no key")
	}
}

// What is not for this guest, at this boot, with this workload, by a named owner, is
// not opened.
func TestOpenRefuses(t *testing.T) {
	owner, stranger := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	guest, another := newKey(t), newKey(t)
	owners := []pod.Hash{id(t, owner)}
	good := seal(t, guest, hostData, owner)
	edit := func(change func(map[string]any)) []byte {
		t.Helper()
		var tree map[string]any
		if err := json.Unmarshal(good, &tree); err != nil {
			t.Fatal(err)
		}
		change(tree)
		out, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	swap := func(member string, from []byte) []byte {
		return edit(func(tree map[string]any) {
			var other map[string]any
			if err := json.Unmarshal(from, &other); err != nil {
				t.Fatal(err)
			}
			tree[member] = other[member]
		})
	}
	for _, tt := range []struct {
		name    string
		message []byte
		want    error
	}{
		{"of another boot", seal(t, another, hostData, owner), secrets.ErrRecipient},
		{"of another workload", seal(t, guest, [32]byte{9}, owner), secrets.ErrOwner},
		{"by a stranger", seal(t, guest, hostData, stranger), secrets.ErrOwner},
		{"a stranger's, with the owner's key", swap("owner", seal(t, guest, hostData, stranger)), secrets.ErrOwner},
		{"another signature", swap("signature", seal(t, guest, hostData, owner)), secrets.ErrOwner},
		{"no signature", edit(func(m map[string]any) { delete(m, "signature") }), secrets.ErrOwner},
		{"no owner", edit(func(m map[string]any) { delete(m, "owner") }), secrets.ErrOwner},
		{"another's box", swap("sealed", seal(t, guest, hostData, owner)), secrets.ErrOwner},
		{"another recipient", swap("recipient", seal(t, another, hostData, owner)), secrets.ErrOwner},
		{"nothing", nil, secrets.ErrForm},
		{"no JSON", []byte("{"), secrets.ErrForm},
		{"an array", []byte("[]"), secrets.ErrForm},
		{"another type", edit(func(m map[string]any) { m["mediaType"] = "application/json" }), secrets.ErrForm},
		{"unknown member", edit(func(m map[string]any) { m["x"] = 1 }), secrets.ErrForm},
		{"too long", append(good, make([]byte, secrets.MaxSize)...), secrets.ErrForm},
	} {
		all, by, err := guest.Open(tt.message, hostData, owners)
		if !errors.Is(err, tt.want) || all != nil || by != (pod.Hash{}) {
			t.Errorf("%s: %v, %v", tt.name, all, err)
		}
	}
	if _, _, err := guest.Open(good, hostData, nil); !errors.Is(err, secrets.ErrOwner) {
		t.Errorf("no owners: %v", err)
	}
	if _, _, err := guest.Open(good, hostData, owners); err != nil {
		t.Errorf("the twin: %v", err)
	}
}

func TestMatch(t *testing.T) {
	spec := pod.Spec{
		Mounts:  []pod.Mount{{Type: pod.MountVolume, Name: "data", Key: "data.key"}},
		Secrets: &pod.Secrets{Expects: []pod.Secret{{Name: "password", Env: "P"}, {Name: "data.key"}}},
	}
	if err := secrets.Match(spec, two); err != nil {
		t.Error(err)
	}
	for want, all := range map[string][]secrets.Secret{
		`"data.key": missing`:             two[:1],
		`"more": the launch spec expects`: append(two[:2:2], secrets.Secret{Name: "more", Value: []byte("x")}),
		"no volume's key":                 {{Name: "password", Value: []byte("x"), Format: true}, two[1]},
		"a NUL cannot stand":              {{Name: "password", Value: []byte("a\x00")}, two[1]},
	} {
		if err := secrets.Match(spec, all); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if secrets.Match(pod.Spec{}, two) == nil {
		t.Error("a spec without secrets")
	}
}

// What opens is what was sealed, whatever else crosses.
func FuzzOpen(f *testing.F) {
	owner := ecKey(f, elliptic.P256())
	guest := newKey(f)
	f.Add(seal(f, guest, hostData, owner))
	f.Add([]byte(`{"mediaType":"` + secrets.MediaType + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, by, err := guest.Open(data, hostData, []pod.Hash{id(t, owner)})
		switch {
		case err != nil && (all != nil || by != (pod.Hash{})):
			t.Fatalf("%v beside %v", all, err)
		case err == nil && !cmp.Equal(all, two):
			t.Fatalf("%v was never sealed", all)
		}
	})
}
