package e2e

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/kraudcloud/kattest/internal/fakesigstore"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
)

// released runs scripts/release over the suite's stack, as a hosted build does:
// by its environment. Each extra is NAME=VALUE.
func released(t *testing.T, out string, extra ...string) result {
	t.Helper()
	cmd := exec.Command("../../scripts/release")
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(),
		"RELEASE_OUT=" + out, "RELEASE_SERIAL=3", "RELEASE_KATTEST=" + filepath.Join(s.bin, "kattest"), "RELEASE_STACK=" + s.stack,
		"RELEASE_BUILDER=https://ci.example/runner", "RELEASE_REPOSITORY=git+https://git.example/kattest",
		"RELEASE_COMMIT=" + strings.Repeat("0c", 20),
	}, extra...)
	return run(t, cmd)
}

// The script for real: what it writes and publishes is what a customer checks.
func TestRelease(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	reference := "oci://" + strings.TrimPrefix(server.URL, "http://") + "/stack:v3"
	key, err := os.ReadFile(s.key)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "made", "release")
	got := released(t, out, "RELEASE_KEY_PEM="+string(key), "RELEASE_PUB="+s.pub, "RELEASE_PUBLISH="+reference, "RELEASE_PLAIN_HTTP=1")
	got.want(t, 0, "serial 3")
	if strings.Contains(got.stdout+got.stderr, "PRIVATE") {
		t.Error("the key is printed")
	}
	for _, name := range []string{"release.sigstore.json", "sbom.sigstore.json", "provenance.sigstore.json", "release.corim", "stack/stack.json"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Mode().Perm()&0o044 != 0o044 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	holds := func(release, pub string, exit int) {
		t.Helper()
		run(t, s.command("kattest", "measure", "--stack", s.stack, "--release", release, "--key", pub, "--plain-http")).want(t, exit)
	}
	holds(filepath.Join(out, "release.sigstore.json"), s.pub, 0)
	holds(reference, s.pub, 0)
	holds(reference, s.other, 3)
	run(t, s.command("kattest", "show", "--key", s.pub, filepath.Join(out, "release.corim"))).want(t, 0, "signed by key")

	// A second time is another release, and leaves the first alone.
	released(t, out, "RELEASE_KEY="+s.key).want(t, 2, "is there already")
}

// With a log, all that a key signs carries its proof.
func TestLoggedRelease(t *testing.T) {
	dir := t.TempDir()
	key, log, out := filepath.Join(dir, "log.key"), filepath.Join(dir, "log"), filepath.Join(dir, "release")
	run(t, exec.Command("openssl", "genpkey", "-quiet", "-algorithm", "ed25519", "-out", key)).want(t, 0)
	run(t, s.command("kattest", "log", "init", log, "--origin", "log.example.org", "--sign", key)).want(t, 0)
	with := []string{"RELEASE_KEY=" + s.key, "RELEASE_PUB=" + s.pub, "RELEASE_LOG=" + log, "RELEASE_LOG_KEY=" + key}
	released(t, out, with...).want(t, 0, "entry 0 of log.example.org")
	args := []string{"log", "monitor", log, "--log", filepath.Join(log, "trusted_root.json"), "--state", filepath.Join(dir, "seen"), "--key", s.pub}
	for _, name := range []string{"release", "sbom", "provenance"} {
		args = append(args, "--bundle", filepath.Join(out, name+".sigstore.json"))
	}
	run(t, s.command("kattest", args...)).want(t, 0, "log.example.org: 3 entries")
	run(t, s.command("kattest", args[:len(args)-2]...)).want(t, 0) // nothing new
	run(t, s.command("kattest", "measure", "--stack", s.stack, "--release", s.release, "--key", s.pub, "--log", filepath.Join(log, "trusted_root.json"))).
		want(t, 3, "stands in none of the trusted logs")

	released(t, filepath.Join(dir, "b"), append(with, "RELEASE_LOG_KEY="+s.key)...).want(t, 2, "not the log's key")
	released(t, filepath.Join(dir, "b"), append(with, "RELEASE_PUB=")...).want(t, 2, "go together")
	if _, err := os.Stat(filepath.Join(dir, "b")); err == nil {
		t.Error("something is left")
	}
}

// keyless is what scripts/release needs besides, to sign for an identity of a
// sigstore on loopback.
func keyless(t *testing.T, by fakesigstore.Signing) []string {
	t.Helper()
	authority, err := fakesigstore.New()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&fakesigstore.Server{Authority: authority})
	t.Cleanup(server.Close)
	root, err := authority.TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	config, err := fakesigstore.SigningConfig(server.URL, 2)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"root.json": root, "config.json": config} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{
		"RELEASE_KEY=keyless", "RELEASE_SIGNING_CONFIG=" + dir + "/config.json", "RELEASE_TRUSTED_ROOT=" + dir + "/root.json",
		"SIGSTORE_ID_TOKEN=" + fakesigstore.IdentityToken(by, time.Now().Add(time.Hour)),
	}
}

// Without a key an identity signs.
func TestKeylessRelease(t *testing.T) {
	by := fakesigstore.Signing{Subject: "https://forge.example/acme/release.yml@refs/tags/v3", Issuer: "https://token.forge.example"}
	env := append(keyless(t, by), "RELEASE_IDENTITY="+by.Subject, "RELEASE_ISSUER="+by.Issuer)
	out := filepath.Join(t.TempDir(), "release")
	released(t, out, env...).want(t, 0, "signed by "+by.Subject)
	for _, name := range []string{"release.sigstore.json", "sbom.sigstore.json", "provenance.sigstore.json"} {
		data, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		if certificate, err := release.HasCertificate(data); err != nil || !certificate {
			t.Errorf("%s: by a certificate: %v, %v", name, certificate, err)
		}
	}
	run(t, s.command("kattest", "show", filepath.Join(out, "release.corim"))).want(t, 0)

	for name, tt := range map[string]struct {
		extra []string
		exit  int
		want  string
	}{
		"by somebody else": {[]string{"RELEASE_IDENTITY=" + by.Subject + "x"}, 3, "is not signed by"},
		"no config":        {[]string{"RELEASE_SIGNING_CONFIG="}, 2, "want --signing-config and --trusted-root"},
		"a public key too": {[]string{"RELEASE_PUB=" + s.pub}, 2, "contradict each other"},
		"no token":         {[]string{"SIGSTORE_ID_TOKEN="}, 2, "no identity token"},
		"by a key":         {[]string{"RELEASE_KEY=" + s.key}, 2, "are for --key keyless"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			released(t, filepath.Join(dir, "release"), append(env, tt.extra...)...).want(t, tt.exit, tt.want)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// Its negative twins: the exit status says what failed, and nothing is left.
func TestReleaseRefuses(t *testing.T) {
	altered := alteredStack(t, stack.Initrd, func(_ *testing.T, b []byte) []byte { b[53] ^= 1; return b }, false)
	relocked := filepath.Join(t.TempDir(), "relocked")
	if err := os.CopyFS(relocked, os.DirFS(s.stack)); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(relocked, stack.Manifest)
	data, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := stack.Load(s.stack)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, []byte(strings.ReplaceAll(string(data), loaded.Lock, strings.Repeat("0", 64))), 0o600); err != nil {
		t.Fatal(err)
	}
	sign := "RELEASE_KEY=" + s.key
	for name, tt := range map[string]struct {
		extra []string
		exit  int
		want  string
	}{
		"no key":                   {nil, 2, "no key"},
		"two keys":                 {[]string{sign, "RELEASE_KEY_PEM=x"}, 2, "one of them"},
		"a key that is not there":  {[]string{"RELEASE_KEY=missing"}, 2, "missing"},
		"a key that is none":       {[]string{"RELEASE_KEY_PEM=x"}, 2, "private key"},
		"another public key":       {[]string{sign, "RELEASE_PUB=" + s.other}, 3, "signature"},
		"an altered stack":         {[]string{sign, "RELEASE_STACK=" + altered}, 2, stack.Initrd},
		"a stack of another lock":  {[]string{sign, "RELEASE_STACK=" + relocked}, 2, "the stack was built from the lock file"},
		"no serial":                {[]string{sign, "RELEASE_SERIAL="}, 2, "RELEASE_SERIAL is not set"},
		"a serial of words":        {[]string{sign, "RELEASE_SERIAL=1;id"}, 2, "is no number"},
		"an unknown CPU":           {[]string{sign, "RELEASE_CPU=$(id)"}, 2, "unknown CPU model"},
		"no commit of 40 digits":   {[]string{sign, "RELEASE_COMMIT=main"}, 2, "commit"},
		"a repository of no form":  {[]string{sign, "RELEASE_REPOSITORY=here"}, 2, "repository"},
		"a policy that is no file": {[]string{sign, "RELEASE_POLICY=missing"}, 2, "--policy"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			released(t, filepath.Join(dir, "release"), tt.extra...).want(t, tt.exit, tt.want)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
	t.Run("a registry that is not there", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "release")
		released(t, out, sign, "RELEASE_PUBLISH=oci://127.0.0.1:1/stack:v3", "RELEASE_PLAIN_HTTP=1").want(t, 4, "127.0.0.1:1")
		if _, err := os.Stat(filepath.Join(out, "release.sigstore.json")); err != nil {
			t.Errorf("what is made is lost: %v", err)
		}
	})
	t.Run("help", func(t *testing.T) {
		run(t, exec.Command("../../scripts/release", "--help")).want(t, 0, "Usage: scripts/release")
		run(t, exec.Command("../../scripts/release", "--bogus")).want(t, 2, "unknown argument --bogus")
		run(t, exec.Command("../../scripts/release", "--out")).want(t, 2, "--out wants a value")
	})
}
