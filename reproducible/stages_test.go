package reproducible

import (
	"os"
	"path/filepath"
	"testing"
)

// What a build could depend on moves a tree's digest; who may read does not.
func TestStageTree(t *testing.T) {
	tree := func(change func(dir string) error) string {
		t.Helper()
		dir := t.TempDir()
		for name, data := range map[string]string{"bin/cc": "compiler", "lib/c": "library", "lib/d": ""} {
			if err := writeFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("cc", filepath.Join(dir, "bin/gcc")); err != nil {
			t.Fatal(err)
		}
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		s, err := stageTree("tree", dir)()
		if err != nil || s.Name != "tree" {
			t.Fatalf("%v, %v", s, err)
		}
		return s.SHA256
	}
	seen := map[string]string{}
	for name, change := range map[string]func(dir string) error{
		"as it was":  func(string) error { return nil },
		"content":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "lib/c"), []byte("Library"), 0o644) },
		"name":       func(dir string) error { return os.Rename(filepath.Join(dir, "lib/c"), filepath.Join(dir, "lib/e")) },
		"gone":       func(dir string) error { return os.Remove(filepath.Join(dir, "lib/d")) },
		"executable": func(dir string) error { return os.Chmod(filepath.Join(dir, "lib/c"), 0o755) },
		"empty one":  func(dir string) error { return os.Mkdir(filepath.Join(dir, "empty"), 0o755) },
		"link": func(dir string) error {
			return os.Rename(filepath.Join(dir, "bin/gcc"), filepath.Join(dir, "bin/g"))
		},
		"target": func(dir string) error {
			link := filepath.Join(dir, "bin/gcc")
			if err := os.Remove(link); err != nil {
				return err
			}
			return os.Symlink("dd", link)
		},
	} {
		sum := tree(change)
		if other, ok := seen[sum]; ok {
			t.Errorf("%q has the digest of %q", name, other)
		}
		seen[sum] = name
	}
	private := tree(func(dir string) error {
		return os.Chmod(filepath.Join(dir, "lib/c"), 0o600)
	})
	if seen[private] != "as it was" {
		t.Errorf("who may read moves the digest: %s", private)
	}
}
