package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kraudcloud/kattest/launcher"
)

// idKeys makes key pairs on P-384 and returns the path that NAME.key and
// NAME.pub stand in.
func idKeys(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		key := filepath.Join(dir, name+".key")
		run(t, exec.Command("openssl", "genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", key)).want(t, 0)
		run(t, exec.Command("openssl", "pkey", "-in", key, "-pubout", "-out", filepath.Join(dir, name+".pub"))).want(t, 0)
	}
	return dir
}

// idBlock signs an ID block for the boot stack with keys/NAME.key, and returns
// the options by which cradle-snp takes it.
func idBlock(t *testing.T, keys, id, author string, more ...string) []string {
	t.Helper()
	block, auth := filepath.Join(t.TempDir(), "id.block"), filepath.Join(t.TempDir(), "id.auth")
	line := []string{
		"idblock", "--stack", s.stack, "--id-key", filepath.Join(keys, id+".key"), "--author-key", filepath.Join(keys, author+".key"),
		"--out-block", block, "--out-auth", auth,
	}
	run(t, s.command("kattest", append(line, more...)...)).want(t, 0, "ID_KEY_DIGEST")
	return []string{"--id-block", block, "--id-auth", auth}
}

// A guest with an ID block boots, and its evidence says who signed it and what.
// The host's own ID block with the same labels does not pass for the owner's.
func TestIDBlock(t *testing.T) {
	keys := idKeys(t, "id", "author", "host")
	pub := func(name string) string { return filepath.Join(keys, name+".pub") }
	const family = "000102030405060708090a0b0c0d0e0f"
	labels := []string{"--guest-svn", "3", "--family-id", family, "--policy", "0x30133"}

	dir := summon(t, idBlock(t, keys, "id", "author", labels...), "serve", ":8080")
	spec := filepath.Join(dir, "spec.json")
	g := start(t, dir)
	r, _ := g.attest(t, spec, "--id-key", pub("id"), "--author-key", pub("author"), "--family-id", family, "--min-guest-svn", "3")
	r.want(t, 0, "id-block.id-key", "id-block.author-key", "id-block.family-id", "id-block.guest-svn", "0x30133 (ABI 1.51, SMT, R", "VERIFIED")
	r, _ = g.attest(t, spec, "--author-key", pub("author"), "--min-guest-svn", "4")
	r.want(t, 5, "an older version of the guest")
	g.stop(t)

	hosts := summon(t, idBlock(t, keys, "host", "host", labels...), "serve", ":8080")
	g = start(t, hosts)
	r, _ = g.attest(t, spec, "--author-key", pub("author"), "--family-id", family)
	r.want(t, 5, "another author's key signed the guest's ID key")
	g.stop(t)

	g = start(t, summon(t, nil, "serve", ":8080"))
	r, _ = g.attest(t, spec, "--id-key", pub("id"))
	r.want(t, 5, "launched without an ID block")
}

// Blocks for another launch or policy, and broken ones, do not get as far as QEMU.
func TestIDBlockOfAnotherLaunch(t *testing.T) {
	keys := idKeys(t, "id", "author")
	dir := summon(t, nil, "exit", "0")
	good := idBlock(t, keys, "id", "author")
	other := idBlock(t, keys, "id", "author", "--guest-svn", "1")
	for _, tt := range []struct {
		name   string
		block  []string
		exit   int
		reason string
	}{
		{"launch digest", idBlock(t, keys, "id", "author", "--vcpus", "2"), 5, "the launch digest is not the ID block's"},
		{"policy", idBlock(t, keys, "id", "author", "--policy", "0xb0000"), 5, "POLICY 0xb0000 would let the host into the guest"},
		{"signature", append(good[:2:2], other[2:]...), 3, "ID_BLOCK_SIG: the signature does not hold"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line := append([]string{"run", "--platform", "sim", "--psp-state", s.psp}, tt.block...)
			run(t, s.command("cradle-snp", append(line, dir)...)).want(t, tt.exit, tt.reason)
			if _, err := os.Stat(filepath.Join(dir, launcher.ConsoleFile)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("QEMU was started (%v)", err)
			}
		})
	}
	// The good one, so that the others prove something.
	line := append([]string{"run", "--platform", "sim", "--psp-state", s.psp}, good...)
	run(t, s.command("cradle-snp", append(line, dir)...)).want(t, 0, "ID_KEY_DIGEST", "AUTHOR_KEY_DIGEST")
}
