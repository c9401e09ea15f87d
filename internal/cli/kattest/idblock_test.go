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
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// Scripts find the stack in $WORK/stack and its release as those of verify do,
// and pairs of keys: id.key and id.pub, author.key and author.pub, stranger.key
// and stranger.pub, and p256.key. In $PATH is a KMS plugin, sigstore-kms-file,
// whose keys are PEM files (testdata/kmsplugin). $MEASUREMENT is the digest of
// the stack with one vCPU.
func TestIDBlockScripts(t *testing.T) {
	plugins := buildPlugin(t)
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
			for _, name := range []string{"id", "author", "stranger"} {
				if _, err := newPair(work(name), elliptic.P384()); err != nil {
					return err
				}
			}
			_, err = newPair(work("p256"), elliptic.P256())
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip,
		},
	})
}

// buildPlugin returns a folder with the KMS plugin.
func buildPlugin(t *testing.T) string {
	t.Helper()
	plugins := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(plugins, "sigstore-kms-file"), "./testdata/kmsplugin")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the KMS plugin: %v\n%s", err, out)
	}
	return plugins
}

// newPair writes a key pair to name.key and name.pub.
func newPair(name string, curve elliptic.Curve) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, err
	}
	private, errA := x509.MarshalPKCS8PrivateKey(key)
	public, errB := x509.MarshalPKIXPublicKey(key.Public())
	return key, errors.Join(errA, errB,
		os.WriteFile(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
		os.WriteFile(name+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
}

// Scripts find reports with their certificates, of guests that differ in their
// ID block: signed.bin's is signed by id.pub and author.pub, with family 01…,
// image 02… and SVN 7; host.bin's by stranger.pub, with the same labels; none.bin
// has none. chain.pem is the simulated PSP's; $ID_KEY and $AUTHOR_KEY are digests.
func TestVerifyIDBlockScripts(t *testing.T) {
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/idblockverify",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup:         func(env *testscript.Env) error { return makeLabelled(env, psp) },
		Cmds:          map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": clitest.Exits, "flip": clitest.Flip},
	})
}

func makeLabelled(env *testscript.Env, psp *simpsp.PSP) error {
	work := func(name string) string { return filepath.Join(env.WorkDir, name) }
	keys := map[string]*ecdsa.PrivateKey{}
	for _, name := range []string{"id", "author", "stranger"} {
		var err error
		if keys[name], err = newPair(work(name), elliptic.P384()); err != nil {
			return err
		}
	}
	if _, err := newPair(work("p256"), elliptic.P256()); err != nil {
		return err
	}
	b := idblock.Block{Measurement: measure.Digest{1}, FamilyID: [16]byte{1}, ImageID: [16]byte{2}, GuestSVN: 7, Policy: 0x30000}
	guests := map[string]*simpsp.Guest{"none.bin": psp.Launch(b.Measurement, [32]byte{}, b.Policy)}
	for name, by := range map[string][2]string{"signed.bin": {"id", "author"}, "host.bin": {"stranger", "stranger"}} {
		auth, err := idblock.Sign(b, keys[by[0]], keys[by[1]])
		if err != nil {
			return err
		}
		if guests[name], err = psp.LaunchID(b.Measurement, [32]byte{}, b.Policy, idblock.Signed{Block: b, Auth: auth}); err != nil {
			return err
		}
		if name == "signed.bin" {
			env.Setenv("ID_KEY", auth.IDKey.Digest().String())
			env.Setenv("AUTHOR_KEY", auth.AuthorKey.Digest().String())
		}
	}
	for name, guest := range guests {
		report := guest.Report([64]byte{}, 0)
		if err := os.WriteFile(work(name), append(report[:], guest.Certificates()...), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(work("chain.pem"), psp.Chain(), 0o600)
}
