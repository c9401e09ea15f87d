package launcher

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// qemu is a QEMU that tests ask.
type qemu struct {
	name    string
	command func(ctx context.Context, args ...string) *exec.Cmd
}

// qemus are this machine's QEMU, and those of Debian's suites in
// testdata/qemus.lock.json, of which one is of another major version. They come
// from the cache that kattest build uses, from the folders of KATTEST_INPUTS, or
// from this machine's mirrors, which keep the newest version of a package alone.
func qemus(t *testing.T) []qemu {
	t.Helper()
	if _, err := exec.LookPath(QEMU); err != nil {
		t.Fatalf("%v: 'make setup' installs it", err)
	}
	all := []qemu{{"installed", func(ctx context.Context, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, QEMU, args...)
	}}}
	l, err := lock.Load("testdata/qemus.lock.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range l.Sets {
		root, err := unpackSet(t, l, set.Name)
		if _, gone := errors.AsType[*fetch.UnavailableError](err); gone {
			t.Run(set.Name, func(t *testing.T) {
				t.Skipf("Debian's mirrors have moved on, or are out of reach: 'kattest lock launcher/testdata/qemus.lock.json' takes what they have now: %v", err)
			})
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, unpacked(set.Name, root))
	}
	return all
}

// unpackSet unpacks a set of packages into a folder.
func unpackSet(t *testing.T, l lock.Lock, set string) (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	f := &fetch.Fetcher{Cache: filepath.Join(user, "kattest"), Folders: filepath.SplitList(os.Getenv("KATTEST_INPUTS"))}
	var debs []string
	for _, in := range l.Inputs {
		if !slices.Contains(in.Sets, set) {
			continue
		}
		deb, err := f.Get(t.Context(), in)
		if err != nil {
			return "", err
		}
		debs = append(debs, deb)
	}
	root := filepath.Join(t.TempDir(), "root")
	return root, debian.Extract(t.Context(), debs, root)
}

// unpacked is the QEMU in a folder. Its own dynamic linker runs it, with its own
// libraries, modules and data.
func unpacked(name, root string) qemu {
	libraries := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	return qemu{name, func(ctx context.Context, args ...string) *exec.Cmd {
		line := []string{"--library-path", libraries, filepath.Join(root, "usr/bin", QEMU), "-L", filepath.Join(root, "usr/share/qemu")}
		cmd := exec.CommandContext(ctx, filepath.Join(libraries, "ld-linux-x86-64.so.2"), append(line, args...)...)
		cmd.Env = append(os.Environ(), "QEMU_MODULE_DIR="+filepath.Join(libraries, "qemu"))
		return cmd
	}}
}

// TestQEMUs: what is built for QEMU, real QEMUs take, and a QEMU of each major
// version that stands in the documentation is asked.
func TestQEMUs(t *testing.T) {
	for _, q := range qemus(t) {
		t.Run(q.name, func(t *testing.T) {
			out, err := q.command(t.Context(), "--version").Output()
			if err != nil {
				t.Fatal(err)
			}
			major := map[string]string{"trixie": "version 10.", "sid": "version 11."}[q.name]
			if !strings.Contains(string(out), major) {
				t.Errorf("want %s: %s", major, out)
			}
			t.Run("line", func(t *testing.T) { testDryRun(t, q) })
			t.Run("ID block", func(t *testing.T) { testDryRunIDBlock(t, q) })
			t.Run("CPU models", func(t *testing.T) { testCPUModels(t, q) })
		})
	}
}
