package keyless

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/kraudcloud/kattest/internal/fakesigstore"
	"github.com/kraudcloud/kattest/measure/release"
)

const (
	subject = "https://forge.example/acme/stack/release.yml@refs/tags/v1.0"
	issuer  = "https://token.forge.example"
)

var (
	exact     = release.Identity{Subject: subject, Issuer: issuer}
	statement = []byte(`{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"https://example.com/v1","subject":[{"digest":{"sha256":"` +
		strings.Repeat("0", 64) + `"},"name":"x"}]}`)
)

func authority(t testing.TB) (*fakesigstore.Authority, *root.TrustedRoot) {
	t.Helper()
	a, err := fakesigstore.New()
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := ParseTrustedRoot(text)
	if err != nil {
		t.Fatal(err)
	}
	return a, trusted
}

func signed(t testing.TB, a *fakesigstore.Authority, s fakesigstore.Signing) []byte {
	t.Helper()
	if s.Subject == "" {
		s.Subject, s.Issuer = subject, issuer
	}
	b, err := a.Sign(statement, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVerify(t *testing.T) {
	a, trusted := authority(t)
	_, stranger := authority(t)
	good := signed(t, a, fakesigstore.Signing{})
	for _, tt := range []struct {
		name    string
		bundle  []byte
		trusted *root.TrustedRoot
		id      release.Identity
		err     string // "" is accepted
	}{
		{"exact", good, trusted, exact, ""},
		{"by patterns", good, trusted, release.Identity{SubjectPattern: `https://forge\.example/acme/stack/.*@refs/tags/v[0-9.]+`, IssuerPattern: `https://token\.(forge|mill)\.example`}, ""},
		{"one of two", good, trusted, release.Identity{SubjectPattern: `mallory|` + subject, Issuer: issuer}, ""},
		{"time by the stamp alone", signed(t, a, fakesigstore.Signing{WithoutPromise: true}), trusted, exact, ""},
		{"time by the log alone", signed(t, a, fakesigstore.Signing{WithoutTimestamp: true}), trusted, exact, ""},

		{"another identity", good, trusted, release.Identity{Subject: subject + "x", Issuer: issuer}, "SAN"},
		{"another issuer", good, trusted, release.Identity{Subject: subject, Issuer: issuer + "/"}, "issuer"},
		{"another case", good, trusted, release.Identity{Subject: strings.ToUpper(subject), Issuer: issuer}, "SAN"},
		{"a pattern that matches the beginning", good, trusted, release.Identity{SubjectPattern: `https://forge\.example/acme/`, Issuer: issuer}, "SAN"},
		{"a pattern that matches the end", good, trusted, release.Identity{SubjectPattern: `stack/release\.yml@refs/tags/v1\.0`, Issuer: issuer}, "SAN"},
		{"alternatives are anchored too", good, trusted, release.Identity{SubjectPattern: `https://forge\.example/|v1\.0`, Issuer: issuer}, "SAN"},
		{"lines are not ends", signed(t, a, fakesigstore.Signing{Subject: "https://forge.example/x?a%0Aroot", Issuer: issuer}), trusted, release.Identity{SubjectPattern: `(?m)^root$`, Issuer: issuer}, "SAN"},
		{"an issuer's pattern that matches a part", good, trusted, release.Identity{Subject: subject, IssuerPattern: `forge\.example`}, "issuer"},
		{"an identity behind ours", signed(t, a, fakesigstore.Signing{Subject: subject + ".mallory.example", Issuer: issuer}), trusted, release.Identity{SubjectPattern: `https://forge\.example/acme/stack/release\.yml@refs/tags/v1\.0`, Issuer: issuer}, "SAN"},

		{"another sigstore", good, stranger, exact, "log inclusion"},
		{"no log entry", signed(t, a, fakesigstore.Signing{WithoutLog: true}), trusted, exact, "not enough verified log entries"},
		{"no SCT", signed(t, a, fakesigstore.Signing{WithoutSCT: true}), trusted, exact, "signed certificate timestamp"},
		{"no time", signed(t, a, fakesigstore.Signing{WithoutTimestamp: true, WithoutPromise: true}), trusted, exact, "timestamp"},
		{"signed after the certificate ended", signed(t, a, fakesigstore.Signing{Certified: time.Now().Add(-20 * time.Minute)}), trusted, exact, "outside certificate validity"},
		{"signed before it began", signed(t, a, fakesigstore.Signing{Certified: time.Now().Add(10 * time.Minute)}), trusted, exact, "outside certificate validity"},
		{"ended by the stamp", signed(t, a, fakesigstore.Signing{Certified: time.Now().Add(-20 * time.Minute), WithoutPromise: true}), trusted, exact, "outside certificate validity"},
		{"another statement", change(t, good, func(tree map[string]any) {
			tree["dsseEnvelope"].(map[string]any)["payload"] = "e30="
		}), trusted, exact, "payload hash"},
		{"another's log entry", change(t, good, func(tree map[string]any) {
			other := parse(t, signed(t, a, fakesigstore.Signing{}))
			material(tree)["tlogEntries"] = material(other)["tlogEntries"]
		}), trusted, exact, "signature does not match"},
		{"another's certificate", change(t, good, func(tree map[string]any) {
			other := parse(t, signed(t, a, fakesigstore.Signing{}))
			material(tree)["certificate"] = material(other)["certificate"]
		}), trusted, exact, "certificate does not match"},
		{"a key's", keyed(t), trusted, exact, "by a key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, by, err := Verify(tt.bundle, tt.trusted, tt.id)
			if tt.err == "" {
				if err != nil || string(got) != string(statement) || by.Subject != subject || by.Issuer != issuer || time.Since(by.Time) > time.Hour {
					t.Errorf("statement %q by %+v, %v", got, by, err)
				}
				return
			}
			if !errors.Is(err, release.ErrSignature) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %v with %q", err, release.ErrSignature, tt.err)
			}
			if got != nil || by != (release.Signer{}) {
				t.Errorf("beside the error: %q, %+v", got, by)
			}
		})
	}
}

// A bundle of the public sigstore, of 2023, verifies under its root.
func TestGenuineBundle(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/sigstore/sigstore-go").Output()
	if err != nil {
		t.Fatalf("looking for sigstore-go's test data: %v", err)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "pkg/testing/data", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	genuine := read("bundles/sigstore.js@2.0.0-provenance.sigstore.json")
	trusted, err := ParseTrustedRoot(read("trusted-roots/public-good.json"))
	if err != nil {
		t.Fatal(err)
	}
	id := release.Identity{
		Subject: "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main",
		Issuer:  "https://token.actions.githubusercontent.com",
	}
	got, by, err := Verify(genuine, trusted, id)
	if err != nil {
		t.Fatal(err)
	}
	if by.Subject != id.Subject || by.Issuer != id.Issuer || by.Time.Year() != 2023 {
		t.Errorf("signed by %+v", by)
	}
	if _, err := release.ParseStatement(got); err == nil || !strings.Contains(err.Error(), "predicateType") {
		t.Errorf("it is no release: %v", err)
	}
	id.Issuer = "https://accounts.example"
	if _, _, err := Verify(genuine, trusted, id); !errors.Is(err, release.ErrSignature) {
		t.Errorf("by another issuer: %v", err)
	}
}

func TestUnusable(t *testing.T) {
	a, trusted := authority(t)
	good := signed(t, a, fakesigstore.Signing{})
	for _, id := range []release.Identity{
		{},
		{Subject: subject},
		{Issuer: issuer},
		{SubjectPattern: ".*", Issuer: issuer},
		{Subject: subject, IssuerPattern: ".*"},
		{Subject: subject, SubjectPattern: "x", Issuer: issuer},
		{SubjectPattern: "a)|(b", Issuer: issuer},
		{SubjectPattern: "(", Issuer: issuer},
	} {
		if got, _, err := Verify(good, trusted, id); err == nil || errors.Is(err, release.ErrSignature) || got != nil {
			t.Errorf("%+v: %q, %v", id, got, err)
		}
	}
	for _, bad := range []string{"", "{}", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=9"}`, "null"} {
		if r, err := ParseTrustedRoot([]byte(bad)); err == nil || r != nil {
			t.Errorf("trusted root %q: %v", bad, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	a, trusted := authority(f)
	f.Add(signed(f, a, fakesigstore.Signing{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, by, err := Verify(data, trusted, exact)
		if err != nil {
			if got != nil || by != (release.Signer{}) {
				t.Fatalf("%q, %+v beside %v", got, by, err)
			}
			return
		}
		if diff := cmp.Diff(string(statement), string(got)); diff != "" {
			t.Fatalf("a statement that was never signed: %s", diff)
		}
	})
}

func parse(t *testing.T, bundle []byte) map[string]any {
	t.Helper()
	var tree map[string]any
	if err := json.Unmarshal(bundle, &tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

func material(tree map[string]any) map[string]any {
	return tree["verificationMaterial"].(map[string]any)
}

func change(t *testing.T, bundle []byte, edit func(tree map[string]any)) []byte {
	t.Helper()
	tree := parse(t, bundle)
	edit(tree)
	out, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// keyed is a bundle that a long-lived key signed.
func keyed(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := release.SignRevocation(release.Revocation{Until: time.Now().Truncate(time.Second), BelowSerial: 1}, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
