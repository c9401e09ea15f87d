package kernel

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/reproducible/sandbox"
)

// A source of a few lines, whose Makefile does nothing.
var source = map[string]string{
	"Makefile": "tinyconfig olddefconfig:\n\ttouch .config\n",
	"file.c":   "one\ntwo\nthree\nfour\nfive\nsix\nseven\n",
}

const fits = `The reason.

--- a/file.c
+++ b/file.c
@@ -1,7 +1,7 @@
 one
 two
 three
-four
+FOUR
 five
 six
 seven
`

func tarball(t *testing.T) []byte {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, data := range source {
		if err := w.WriteHeader(&tar.Header{Name: Source + "/" + name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	xz := exec.Command("xz", "-c")
	xz.Stdin = &archive
	compressed, err := xz.Output()
	if err != nil {
		t.Fatal(err)
	}
	return compressed
}

// configure runs the script's first step on the source with a patch, with this
// machine's tools, and returns the folder that it works in.
func configure(t *testing.T, patch string) (work, said string, err error) {
	t.Helper()
	in, work := t.TempDir(), t.TempDir()
	for name, data := range map[string][]byte{
		Source + ".tar.xz": tarball(t), FragmentFile: Fragment, ScriptFile: Script, "0001.patch": []byte(patch),
	} {
		if err := os.WriteFile(filepath.Join(in, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var output bytes.Buffer
	err = sandbox.Command{
		Binds: []sandbox.Bind{
			{Host: "/usr", Guest: "/usr"},
			{Host: "/bin", Guest: "/bin"},
			{Host: "/lib", Guest: "/lib"},
			{Host: "/lib64", Guest: "/lib64"},
			{Host: in, Guest: Inputs},
			{Host: work, Guest: Work, Writable: true},
		},
		Dir:    Work,
		Env:    Env(),
		Args:   []string{"/bin/sh", Inputs + "/" + ScriptFile, Configure},
		Output: &output,
	}.Run(t.Context())
	return work, output.String(), err
}

func TestScriptAppliesPatches(t *testing.T) {
	needsTools(t)
	work, said, err := configure(t, fits)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	got, err := os.ReadFile(filepath.Join(work, Source, "file.c"))
	if want := strings.Replace(source["file.c"], "four", "FOUR", 1); err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	config, err := os.ReadFile(filepath.Join(work, ConfigFile))
	if err != nil || !bytes.Equal(config, Fragment) {
		t.Errorf("%d bytes of configuration, %v, want the fragment", len(config), err)
	}
}

// A patch that does not fit exactly ends the build, before anything is configured.
func TestScriptRefusesPatches(t *testing.T) {
	needsTools(t)
	for name, c := range map[string]struct{ from, to, want string }{
		"other line":    {"-four", "-vier", "FAILED"},
		"other context": {" one\n", " eins\n", "FAILED"}, // patch's own default would let it pass, with fuzz
		"moved":         {"@@ -1,7 +1,7 @@", "@@ -3,7 +3,7 @@", "does not fit exactly"},
		"other file":    {"file.c", "other.c", "can't find file to patch"},
	} {
		work, said, err := configure(t, strings.ReplaceAll(fits, c.from, c.to))
		if err == nil || !strings.Contains(said, c.want) {
			t.Errorf("%s: error %v, want %q of\n%s", name, err, c.want, said)
		}
		if _, err := os.Stat(filepath.Join(work, ConfigFile)); err == nil {
			t.Errorf("%s: configured all the same", name)
		}
	}
}

func needsTools(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"bwrap", "patch", "make", "xz"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed, which the locked build root has", tool)
		}
	}
}
