package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/internal/fakesigstore"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/provenance"
)

// cosign alone accepts what kattest signs about the boot stack, and refuses it once
// it is damaged.
func TestCosign(t *testing.T) {
	c := newCosign(t)
	dir := t.TempDir()
	sbom, built := filepath.Join(dir, "sbom.json"), filepath.Join(dir, "provenance.json")
	const lock = "../../reproducible/lock.json"
	run(t, s.command("kattest", "sbom", "--stack", s.stack, "--lock", lock, "--sign", s.key, "--bundle", sbom)).want(t, 0)
	run(t, s.command("kattest", "provenance", "--stack", s.stack, "--lock", lock, "--builder", "https://ci.example/runner",
		"--repository", "git+https://git.example/kattest", "--commit", strings.Repeat("0c", 20), "--sign", s.key, "--bundle", built)).want(t, 0)

	for _, tt := range []struct{ name, bundle, kind string }{
		{"release", s.release, release.PredicateType}, {"sbom", sbom, release.SBOMType}, {"provenance", built, provenance.PredicateType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			verify := func(key, bundle, file string) result {
				t.Helper()
				return c.verify(t, bundle, tt.kind, file, "--key", key, "--insecure-ignore-tlog=true")
			}
			kernel := filepath.Join(s.stack, stack.Kernel)
			verify(s.pub, tt.bundle, kernel).want(t, 0)
			refused(t, "another key", verify(s.other, tt.bundle, kernel))
			refused(t, "another file", verify(s.pub, tt.bundle, s.pub))
			refused(t, "a changed statement", verify(s.pub, damaged(t, tt.bundle, "payload"), kernel))
			refused(t, "a changed signature", verify(s.pub, damaged(t, tt.bundle, "signature"), kernel))
		})
	}
}

// With the trusted root of our own log, cosign demands its proof.
func TestCosignLog(t *testing.T) {
	c := newCosign(t)
	dir := t.TempDir()
	key, bundle := filepath.Join(dir, "log.key"), filepath.Join(dir, "logged.json")
	run(t, exec.Command("openssl", "genpkey", "-quiet", "-algorithm", "ed25519", "-out", key)).want(t, 0)
	for _, name := range []string{"log", "another"} {
		run(t, s.command("kattest", "log", "init", filepath.Join(dir, name), "--origin", "log.example.org", "--sign", key)).want(t, 0)
		if name == "another" {
			break
		}
		data, err := os.ReadFile(s.release)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(bundle, data, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, s.command("kattest", "log", "add", filepath.Join(dir, name), bundle, "--sign", key, "--key", s.pub)).want(t, 0)
		run(t, exec.Command("openssl", "genpkey", "-quiet", "-algorithm", "ed25519", "-out", key)).want(t, 0)
	}
	kernel := filepath.Join(s.stack, stack.Kernel)
	verify := func(bundle, log string) result {
		t.Helper()
		return c.verify(t, bundle, release.PredicateType, kernel, "--key", s.pub, "--trusted-root", filepath.Join(dir, log, "trusted_root.json"))
	}
	verify(bundle, "log").want(t, 0)
	refused(t, "a release in no log", verify(s.release, "log"))
	refused(t, "a release in another log", verify(bundle, "another"))
	refused(t, "a changed checkpoint", verify(changed(t, bundle, `log.example.org\n1\n`, `log.example.org\n2\n`), "log"))
}

// What an identity signed, with a sigstore of our own.
func TestCosignIdentity(t *testing.T) {
	c := newCosign(t)
	dir := t.TempDir()
	bundle, trusted := filepath.Join(dir, "keyless.json"), filepath.Join(dir, "root.json")
	by := fakesigstore.Signing{Subject: "https://forge.example/acme/stack/release.yml@refs/tags/v1.0", Issuer: "https://token.forge.example"}
	stranger := filepath.Join(dir, "stranger.json")
	data, err := os.ReadFile(s.release)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := release.Claims(data)
	if err != nil {
		t.Fatal(err)
	}
	for file, signed := range map[string]string{trusted: bundle, stranger: filepath.Join(dir, "another.json")} {
		a, err := fakesigstore.New()
		if err != nil {
			t.Fatal(err)
		}
		root, err := a.TrustedRoot()
		if err != nil {
			t.Fatal(err)
		}
		b, err := a.Sign(claim.Statement, by)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(file, root, 0o600), os.WriteFile(signed, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(subject, issuer, trusted, file string) result {
		t.Helper()
		return c.verify(t, bundle, release.PredicateType, file,
			"--certificate-identity", subject, "--certificate-oidc-issuer", issuer, "--trusted-root", trusted)
	}
	kernel := filepath.Join(s.stack, stack.Kernel)
	verify(by.Subject, by.Issuer, trusted, kernel).want(t, 0)
	refused(t, "another file", verify(by.Subject, by.Issuer, trusted, s.pub))
	refused(t, "another identity", verify(by.Subject+"/x", by.Issuer, trusted, kernel))
	refused(t, "another issuer", verify(by.Subject, by.Issuer+"/x", trusted, kernel))
	refused(t, "another sigstore", verify(by.Subject, by.Issuer, stranger, kernel))
}

// cosign is the program.
type cosign string

func newCosign(t *testing.T) cosign {
	t.Helper()
	program := os.Getenv("COSIGN")
	if program == "" {
		t.Skip("COSIGN names no cosign: building it takes many minutes (docs/publishing.md has the command)")
	}
	return cosign(program)
}

func (c cosign) verify(t *testing.T, bundle, kind, file string, args ...string) result {
	t.Helper()
	return run(t, exec.Command(string(c), append([]string{
		"verify-blob-attestation", "--new-bundle-format", "--bundle", bundle, "--type", kind, file,
	}, args...)...))
}

func refused(t *testing.T, what string, r result) {
	t.Helper()
	if r.exit == 0 {
		t.Errorf("%s is accepted:\n%s%s", what, r.stdout, r.stderr)
	}
}

// changed returns a copy of the bundle with one text in place of another.
func changed(t *testing.T, bundle, from, to string) string {
	t.Helper()
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), from, to, 1)
	if text == string(data) {
		t.Fatalf("the bundle has no %s", from)
	}
	file := filepath.Join(t.TempDir(), "changed.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// damaged returns a copy of the bundle with one bit of its statement or of its
// signature changed.
func damaged(t *testing.T, bundle, what string) string {
	t.Helper()
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	var b map[string]json.RawMessage
	var envelope struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig []byte `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b["dsseEnvelope"], &envelope); err != nil {
		t.Fatal(err)
	}
	old := envelope.Payload
	if what == "signature" {
		old = envelope.Signatures[0].Sig
	}
	bad := append([]byte(nil), old...)
	bad[len(bad)-2] ^= 1
	return changed(t, bundle, base64.StdEncoding.EncodeToString(old), base64.StdEncoding.EncodeToString(bad))
}
