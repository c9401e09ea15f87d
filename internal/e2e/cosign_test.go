package e2e

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/provenance"
)

// cosign alone accepts what kattest signs about the boot stack, and refuses it once
// it is damaged.
func TestCosign(t *testing.T) {
	cosign := os.Getenv("COSIGN")
	if cosign == "" {
		t.Skip("COSIGN names no cosign: building it takes many minutes (docs/publishing.md has the command)")
	}
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
				return run(t, exec.Command(cosign, "verify-blob-attestation", "--key", key, "--bundle", bundle,
					"--type", tt.kind, "--insecure-ignore-tlog=true", file))
			}
			refused := func(what string, r result) {
				t.Helper()
				if r.exit == 0 {
					t.Errorf("%s is accepted:\n%s%s", what, r.stdout, r.stderr)
				}
			}
			kernel := filepath.Join(s.stack, stack.Kernel)
			verify(s.pub, tt.bundle, kernel).want(t, 0)
			refused("another key", verify(s.other, tt.bundle, kernel))
			refused("another file", verify(s.pub, tt.bundle, s.pub))
			refused("a changed statement", verify(s.pub, damaged(t, tt.bundle, "payload"), kernel))
			refused("a changed signature", verify(s.pub, damaged(t, tt.bundle, "signature"), kernel))
		})
	}
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
	changed := append([]byte(nil), old...)
	changed[len(changed)-2] ^= 1
	text := strings.Replace(string(data), base64.StdEncoding.EncodeToString(old), base64.StdEncoding.EncodeToString(changed), 1)
	if text == string(data) {
		t.Fatalf("the bundle has no such %s", what)
	}
	file := filepath.Join(t.TempDir(), "damaged.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
