package e2e

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	known "github.com/kraudcloud/kattest/launcher/probe"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// generic is the package with Debian's generic OVMF, which carries the hash
// table and does not look at it.
var generic = lock.Input{
	Name: "ovmf-generic", Version: "2026.08+ds-2", Kind: "deb", Archive: "debian",
	Path: "pool/main/e/edk2/ovmf-generic_2026.08+ds-2_all.deb", Size: 7432124,
	SHA256: "05c1593998ba58700ff86c062bde306321af1f5a2943ea9ceef6c2332f3f3374",
}

// probe runs kattest firmware with a cache of its own, where nothing is kept yet.
func probe(t *testing.T, cache string, args ...string) result {
	t.Helper()
	cmd := s.command("kattest", append([]string{"firmware"}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache)
	return run(t, cmd)
}

// The boot stack's firmware boots what its table names, and nothing else. It is the
// known one: who builds it elsewhere gets the same bytes.
func TestProbe(t *testing.T) {
	image, err := os.ReadFile(filepath.Join(s.stack, "OVMF.fd"))
	if err != nil {
		t.Fatal(err)
	}
	if got := measure.Hash(sha256.Sum256(image)).String(); got != known.BootStack {
		t.Errorf("the firmware is %s, and the known one %s: what it is made from has changed, or the machine it was made on matters", got, known.BootStack)
	}
	cache := t.TempDir()
	probe(t, cache, "--probe", filepath.Join(s.stack, "OVMF.fd")).want(t, 0,
		"right hashes", "kernel hashes are enforced: it boots what its table names, and refused 6 boots of something else")
	kept, err := filepath.Glob(filepath.Join(cache, "kattest", "firmware", "*.json"))
	if err != nil || len(kept) != 1 {
		t.Errorf("kept: %v, %v", kept, err)
	}
}

// The twin: one that has the table too, and boots anything.
func TestProbeOfGenericFirmware(t *testing.T) {
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	f := fetch.Fetcher{Cache: filepath.Join(user, "kattest")}
	deb, err := f.Get(t.Context(), generic)
	if _, ok := errors.AsType[*fetch.UnavailableError](err); ok {
		t.Skipf("Debian's mirrors drop what is superseded, and no cache has it: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := debian.Extract(t.Context(), []string{deb}, root); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(root, "usr/share/ovmf/OVMF.fd")
	probe(t, t.TempDir(), "--probe", image).want(t, 5, "KERNEL HASHES ARE NOT ENFORCED", "it boots with another kernel, another initrd, another command line, no hash table, a shim, an option ROM")

	// Such a firmware makes a digest, with a warning, and no release.
	kernel := filepath.Join(s.stack, "vmlinuz")
	run(t, s.command("kattest", "measure", "--firmware", image, "--kernel", kernel, "--output", "digest")).want(t, 0, "warning: the firmware does not enforce kernel hashes (Debian ovmf-generic")
	stack := alteredStack(t, "OVMF.fd", func(t *testing.T, _ []byte) []byte {
		data, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}, true)
	bundle := filepath.Join(t.TempDir(), "release.json")
	run(t, s.command("kattest", "measure", "--stack", stack, "--sign", s.key, "--bundle", bundle)).want(t, 5, "no release of a firmware that does not enforce kernel hashes")
}
