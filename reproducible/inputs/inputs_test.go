package inputs_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/reproducible/inputs"
)

var hash = strings.Repeat("0a", 32)

func write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func archive(t *testing.T, files ...inputs.File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := inputs.Write(&b, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestArchive(t *testing.T) {
	files := []inputs.File{
		{Name: inputs.Module("example.com/!m/@v/v1.0.0.mod"), Path: write(t, "m", "module example.com/M\n")},
		{Name: inputs.LockFile, Path: write(t, "l", "{}")},
		{Name: inputs.Input(hash), Path: write(t, "i", "an input")},
	}
	first := archive(t, files...)
	files[0], files[2] = files[2], files[0]
	if !bytes.Equal(first, archive(t, files...)) {
		t.Error("another order gives another archive")
	}
	a, err := inputs.Open(write(t, "a.tar", string(first)))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for name, want := range map[string]string{inputs.LockFile: "{}", inputs.Input(hash): "an input"} {
		r, err := a.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := a.Open("nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	dir := t.TempDir()
	if n, err := a.ExtractModules(dir); n != 1 || err != nil {
		t.Fatalf("%d modules, %v", n, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "example.com/!m/@v/v1.0.0.mod")); err != nil || string(got) != "module example.com/M\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHostileArchives(t *testing.T) {
	made := func(headers ...tar.Header) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(w, zeros{}, h.Size); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	first := tar.Header{Name: inputs.LockFile, Size: 3}
	whole := made(first, tar.Header{Name: inputs.Input(hash), Size: 5000})
	for _, tt := range []struct{ name, data, err string }{
		{"empty", "", "it is empty"},
		{"no tar", strings.Repeat("x", 1024), "byte 0: "},
		{"cut off", whole[:4000], "byte 1024: sha256/" + hash + " ends behind the archive"},
		{"another name", made(first, tar.Header{Name: "etc/passwd"}), `byte 1024: "etc/passwd" is no name`},
		{"outside", made(first, tar.Header{Name: "go/../../etc/passwd"}), "is no name"},
		{"absolute", made(first, tar.Header{Name: "/go/x"}), "is no name"},
		{"a folder", made(first, tar.Header{Name: "go/x/", Typeflag: tar.TypeDir}), "is no name"},
		{"a link", made(first, tar.Header{Name: "go/x", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), "go/x is not a regular file"},
		{"a hash of upper case", made(first, tar.Header{Name: "sha256/" + strings.ToUpper(hash)}), "is no name"},
		{"twice", made(first, tar.Header{Name: "go/x"}, tar.Header{Name: "go/x"}), "byte 1536: go/x stands twice"},
		{"no lock file", made(tar.Header{Name: "go/x"}), "it begins with go/x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := inputs.Open(write(t, "a.tar", tt.data))
			if err == nil || a != nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
	if _, err := inputs.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	for _, name := range []string{"x", "sha256/", "go/", "go/./x", "go//x", "../lock.json"} {
		if err := inputs.Write(io.Discard, []inputs.File{{Name: name, Path: os.DevNull}}); err == nil {
			t.Errorf("%q is written", name)
		}
	}
	twice := inputs.File{Name: inputs.LockFile, Path: os.DevNull}
	if err := inputs.Write(io.Discard, []inputs.File{twice, twice}); err == nil {
		t.Error("a name is written twice")
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	var b bytes.Buffer
	if err := inputs.Write(&b, []inputs.File{{Name: inputs.LockFile, Path: os.DevNull}, {Name: inputs.Input(hash), Path: os.DevNull}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(dir, "a.tar")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := inputs.Open(file)
		if err != nil {
			return
		}
		defer a.Close()
		if _, err := a.Open(inputs.LockFile); err != nil {
			t.Error(err)
		}
	})
}
