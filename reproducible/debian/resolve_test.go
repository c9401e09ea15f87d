package debian_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// machine describes what of the machine's package state a resolution must leave
// as it is.
func machine(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"/var/lib/apt/lists/*", "/var/lib/dpkg/status", "/var/cache/apt/*", "/var/cache/apt/archives/*", "/etc/apt/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprint(name, info.Size(), info.ModTime()))
		}
	}
	return all
}

// This test reads the machine's own mirror, as the rest of the tests do for
// their inputs.
func TestResolve(t *testing.T) {
	before := machine(t)
	set := lock.Set{Name: "s", Kind: lock.KindDeb, Suites: []string{"debian/bookworm"}, Closure: true, Packages: []string{"mawk"}}
	alone := set
	alone.Closure = false
	var both, single []lock.Input
	var errBoth, errSingle error
	var all sync.WaitGroup
	all.Go(func() { both, errBoth = debian.Resolve(t.Context(), set, nil) })
	all.Go(func() { single, errSingle = debian.Resolve(t.Context(), alone, nil) })
	all.Wait()
	if errBoth != nil || errSingle != nil {
		t.Fatal(errBoth, errSingle)
	}
	// mawk is installed on this machine or not: the closure knows nothing of it.
	for _, name := range []string{"libc6", "libgcc-s1", "gcc-12-base", "mawk"} {
		if !slices.ContainsFunc(both, func(in lock.Input) bool { return in.Name == name }) {
			t.Errorf("%s is not in the closure", name)
		}
	}
	if len(single) != 1 || single[0].Name != "mawk" || !strings.HasPrefix(single[0].Path, "pool/main/m/mawk/mawk_") {
		t.Errorf("mawk alone is %v", single)
	}
	if _, err := lock.New([]lock.Set{set}, both); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, machine(t)); diff != "" {
		t.Errorf("the machine's own apt has changed: %s", diff)
	}
}

func TestResolveUnknown(t *testing.T) {
	set := lock.Set{Name: "s", Kind: lock.KindDeb, Suites: []string{"debian/bookworm"}, Closure: true, Packages: []string{"kattest-no-such-package"}}
	in, err := debian.Resolve(t.Context(), set, nil)
	if in != nil || err == nil || !strings.Contains(err.Error(), "kattest-no-such-package") {
		t.Errorf("got %v, %v", in, err)
	}
}

// An archive without Debian's signature is refused, whatever the machine's apt
// would let pass.
func TestResolveUnsigned(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"dists/bookworm/Release": "Suite: bookworm\nCodename: bookworm\nArchitectures: amd64\nComponents: main\n",
		"dists/bookworm/main/binary-amd64/Packages": "Package: evil\nVersion: 1\nArchitecture: all\nFilename: pool/evil.deb\n" +
			"Size: 1\nSHA256: 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\n",
		"sources.list": "deb [trusted=yes] file://" + dir + " bookworm main\n",
		"apt.conf": fmt.Sprintf("Dir::Etc::sourcelist %q;\nDir::Etc::sourceparts \"/dev/null\";\n", filepath.Join(dir, "sources.list")) +
			"APT::Get::AllowUnauthenticated \"true\";\nAcquire::AllowInsecureRepositories \"true\";\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("APT_CONFIG", filepath.Join(dir, "apt.conf"))
	set := lock.Set{Name: "s", Kind: lock.KindDeb, Suites: []string{"debian/bookworm"}, Packages: []string{"evil"}}
	in, err := debian.Resolve(t.Context(), set, nil)
	if in != nil || err == nil || !strings.Contains(err.Error(), "is not signed") {
		t.Errorf("got %v, %v", in, err)
	}
}

// A source is resolved to its tarballs, with the version that is nowhere in
// their names.
func TestResolveSource(t *testing.T) {
	set := lock.Set{Name: "s", Kind: lock.KindSource, Suites: []string{"debian/bookworm"}, Packages: []string{"hello"}}
	in, err := debian.Resolve(t.Context(), set, nil)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, i := range in {
		files = append(files, i.File())
		if i.Name != "hello" || i.Kind != lock.KindSource || !strings.HasPrefix(i.File(), "hello_"+strings.Split(i.Version, "-")[0]) {
			t.Errorf("input %+v", i)
		}
	}
	if len(in) != 2 || !strings.Contains(files[0]+files[1], ".orig.tar.") || !strings.Contains(files[0]+files[1], ".debian.tar.") {
		t.Errorf("files %v", files)
	}
	if _, err := lock.New([]lock.Set{set}, in); err != nil {
		t.Error(err)
	}
	set.Packages = []string{"kattest-no-such-source"}
	if in, err := debian.Resolve(t.Context(), set, nil); in != nil || err == nil || !strings.Contains(err.Error(), "kattest-no-such-source") {
		t.Errorf("got %v, %v", in, err)
	}
}
