package cradle_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/measure/stack"
)

// TestIDBlockScripts runs testdata/idblock. Scripts find, beside what those of
// summon do, ID blocks in the firmware's form and in base64 (.txt):
//
//	good.block good.auth       for one vCPU of the stack, with an author's key
//	alone.block alone.auth     the same without
//	digest.block digest.auth   for another launch digest
//	policy.block policy.auth   for a policy that lets the host in
//	strict.block strict.auth   for firmware of ABI 1.51 and later
//
// $ID_KEY and $AUTHOR_KEY are the digests of good's keys.
func TestIDBlockScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "idblock"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			dir := filepath.Join(env.WorkDir, "stack")
			env.Setenv("KATTEST_STACK", dir)
			if err := errors.Join(clitest.WriteStack(dir, "console=ttyS0 quiet"), makeLayout(filepath.Join(env.WorkDir, "hello"))); err != nil {
				return err
			}
			return makeIDBlocks(env, dir)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": clitest.Exits, "flip": clitest.Flip},
	})
}

func makeIDBlocks(env *testscript.Env, stackDir string) error {
	manifest, fw, err := stack.LoadFirmware(stackDir)
	if err != nil {
		return err
	}
	digest, err := vm.DefaultConfig().Measure(manifest, fw)
	if err != nil {
		return err
	}
	id, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	author, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	good := idblock.Block{Measurement: digest, Policy: idblock.DefaultPolicy, GuestSVN: 7}
	other, debug, strict := good, good, good
	other.Measurement[0] ^= 1
	debug.Policy |= 1 << 19
	strict.Policy |= 1<<8 | 51 // firmware of ABI 1.51 at least
	for _, f := range []struct {
		name   string
		block  idblock.Block
		author crypto.Signer
	}{{"good", good, author}, {"alone", good, nil}, {"digest", other, author}, {"policy", debug, author}, {"strict", strict, author}} {
		auth, err := idblock.Sign(f.block, id, f.author)
		if err != nil {
			return err
		}
		if f.name == "good" {
			env.Setenv("ID_KEY", auth.IDKey.Digest().String())
			env.Setenv("AUTHOR_KEY", auth.AuthorKey.Digest().String())
		}
		rawBlock, rawAuth := f.block.Encode(), auth.Encode()
		textBlock, errB := f.block.MarshalText()
		textAuth, errA := auth.MarshalText()
		if err := errors.Join(errB, errA); err != nil {
			return err
		}
		for suffix, data := range map[string][]byte{
			".block": rawBlock[:], ".auth": rawAuth[:],
			".block.txt": append(textBlock, '\n'), ".auth.txt": append(textAuth, '\n'),
		} {
			if err := os.WriteFile(filepath.Join(env.WorkDir, f.name+suffix), data, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}
