package resolve_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/resolve"
)

// proxy makes a Go module proxy in a folder, with one version of one module.
func proxy(t *testing.T) (dir, zipSHA256 string, size int64) {
	t.Helper()
	source := t.TempDir()
	const mod = "module example.com/Mixed\n"
	if err := os.WriteFile(filepath.Join(source, "go.mod"), []byte(mod), 0o644); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	at := filepath.Join(dir, "example.com/!mixed/@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(at, "v1.2.3.zip"))
	if err != nil {
		t.Fatal(err)
	}
	if err := zip.CreateFromDir(f, module.Version{Path: "example.com/Mixed", Version: "v1.2.3"}, source); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"v1.2.3.mod": mod, "v1.2.3.info": `{"Version":"v1.2.3"}`, "list": "v1.2.3\n"} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return dir, hex.EncodeToString(sum[:]), int64(len(data))
}

func goSet(request string) []lock.Set {
	return []lock.Set{{Name: "go", Kind: lock.KindGo, Packages: []string{request}}}
}

func TestGo(t *testing.T) {
	dir, sum, size := proxy(t)
	t.Setenv("GOPROXY", "file://"+dir)
	t.Setenv("GOMODCACHE", t.TempDir())
	t.Setenv("GOFLAGS", "-modcacherw") // so that the test's folder can be removed
	t.Setenv("GONOSUMDB", "example.com")
	var log strings.Builder
	got, err := resolve.Lock(t.Context(), goSet("example.com/Mixed@v1.2.3"), &log)
	if err != nil {
		t.Fatal(err)
	}
	want := []lock.Input{{
		Name: "example.com/Mixed", Version: "v1.2.3", Kind: "go", Archive: "go",
		Path: "example.com/!mixed/@v/v1.2.3.zip", Sets: []string{"go"}, Size: size, SHA256: sum,
	}}
	if diff := cmp.Diff(want, got.Inputs); diff != "" {
		t.Error(diff)
	}

	if got, err := resolve.Lock(t.Context(), goSet("example.com/Mixed@v9.9.9"), &log); err == nil || got.Inputs != nil {
		t.Errorf("a version that is not there: %v, %v", got, err)
	}
	// A query instead of a version is no pin.
	if got, err := resolve.Lock(t.Context(), goSet("example.com/Mixed@v1"), &log); err == nil || !strings.Contains(err.Error(), "got version v1.2.3") {
		t.Errorf("a query: %v, %v", got, err)
	}
}
