package kattest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
)

// Scripts find the stack in $WORK/stack and its release as those of verify do,
// and pairs of keys: id.key and id.pub, author.key and author.pub, stranger.key
// and stranger.pub, and p256.key. In $PATH is a KMS plugin, sigstore-kms-file,
// whose keys are PEM files (testdata/kmsplugin). $MEASUREMENT is the digest of
// the stack with one vCPU.
func TestIDBlockScripts(t *testing.T) {
	plugins := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(plugins, "sigstore-kms-file"), "./testdata/kmsplugin")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the KMS plugin: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/idblock",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			work := func(name string) string { return filepath.Join(env.WorkDir, name) }
			if err := clitest.WriteStack(work("stack"), "console=ttyS0 quiet"); err != nil {
				return err
			}
			digest, err := publish(work("stack"), work("release.json"), work("release.pub"), work("other.pub"))
			if err != nil {
				return err
			}
			env.Setenv("MEASUREMENT", digest.String())
			env.Setenv("PATH", plugins+string(os.PathListSeparator)+env.Getenv("PATH"))
			return errors.Join(
				newPair(work("id"), elliptic.P384()), newPair(work("author"), elliptic.P384()),
				newPair(work("stranger"), elliptic.P384()), newPair(work("p256"), elliptic.P256()))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip,
		},
	})
}

// newPair writes a key pair to name.key and name.pub.
func newPair(name string, curve elliptic.Curve) error {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return err
	}
	private, errA := x509.MarshalPKCS8PrivateKey(key)
	public, errB := x509.MarshalPKIXPublicKey(key.Public())
	return errors.Join(errA, errB,
		os.WriteFile(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
		os.WriteFile(name+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
}
