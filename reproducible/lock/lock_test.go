package lock_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/reproducible/lock"
)

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

var sets = []lock.Set{
	{Name: "tools", Kind: lock.KindDeb, Suites: []string{"debian/bookworm"}, Closure: true, Packages: []string{"make", "g++"}},
	{Name: "go", Kind: lock.KindGo, Packages: []string{"example.com/m@v1.2.3"}},
	{Name: "source", Kind: lock.KindSource, Suites: []string{"debian/trixie"}, Packages: []string{"edk2"}},
	{Name: "base", Kind: lock.KindDeb, Suites: []string{"debian-security/bookworm-security"}, Packages: []string{"libc6"}},
}

func inputs() []lock.Input {
	return []lock.Input{
		{Name: "make", Version: "4.3-4.1", Kind: "deb", Archive: "debian", Path: "pool/main/m/make/make_4.3-4.1_amd64.deb", Sets: []string{"tools"}, Size: 3, SHA256: zeros[:63] + "1"},
		{Name: "libc6", Version: "2:2.36+dfsg~1", Kind: "deb", Archive: "debian", Path: "pool/l/libc6_2.36+dfsg~1_amd64.deb", Sets: []string{"tools"}, Size: 2, SHA256: zeros},
		{Name: "libc6", Version: "2:2.36+dfsg~1", Kind: "deb", Archive: "debian", Path: "pool/l/libc6_2.36+dfsg~1_amd64.deb", Sets: []string{"base"}, Size: 2, SHA256: zeros},
		{Name: "example.com/m", Version: "v1.2.3", Kind: "go", Archive: "go", Path: "example.com/m/@v/v1.2.3.zip", Sets: []string{"go"}, Size: 1, SHA256: zeros},
		{Name: "edk2", Version: "2025.02-8", Kind: "source", Archive: "debian", Path: "pool/e/edk2_2025.02.orig.tar.xz", Sets: []string{"source"}, Size: 5, SHA256: zeros[:63] + "2"},
		{Name: "edk2", Version: "2025.02-8", Kind: "source", Archive: "debian", Path: "pool/e/edk2_2025.02-8.debian.tar.xz", Sets: []string{"source"}, Size: 4, SHA256: zeros[:63] + "3"},
	}
}

func newLock(t testing.TB) lock.Lock {
	t.Helper()
	l, err := lock.New(sets, inputs())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNew(t *testing.T) {
	l := newLock(t)
	var names []string
	for _, s := range l.Sets {
		names = append(names, s.Name)
	}
	if diff := cmp.Diff([]string{"base", "go", "source", "tools"}, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"g++", "make"}, l.Sets[3].Packages); diff != "" {
		t.Error(diff)
	}
	// libc6 stands once, in both of its sets; the two tarballs of a source each do.
	if len(l.Inputs) != 5 {
		t.Fatalf("%d inputs, want 5", len(l.Inputs))
	}
	if diff := cmp.Diff([]string{"base", "tools"}, l.Inputs[0].Sets); diff != "" {
		t.Error(diff)
	}
	if got := l.Set("tools"); len(got) != 2 || got[0].Name != "libc6" || got[1].Name != "make" {
		t.Errorf("set tools: %v", got)
	}
	if got := l.Set("none"); got != nil {
		t.Errorf("set none: %v", got)
	}
}

func TestDigestIsOfTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock.json")
	l := newLock(t)
	if err := l.Write(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	again, err := lock.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l, again); diff != "" {
		t.Error(diff)
	}
	if again.Digest() != hex.EncodeToString(sum[:]) {
		t.Errorf("digest %s, the file's is %x", again.Digest(), sum)
	}
	if (lock.Lock{}).Digest() != "" {
		t.Error("the zero value has a digest")
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := newLock(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, from, to, want string }{
		{"media type", "lock.v1", "lock.v2", "mediaType"},
		{"unknown member", `"closure"`, `"closed"`, `unknown member "closed"`},
		{"layout", "  \"sets\"", " \"sets\"", "offset 58: not in canonical form"},
		{"trailing", "]\n}\n", "]\n}\n\n", "not in canonical form"},
		{"set twice", `"name": "base"`, `"name": "go"`, `sets[1].name: "go" stands twice`},
		{"set order", `"name": "go",`, `"name": "aa",`, "sets: not sorted"},
		{"kind of set", `"kind": "deb",` + "\n      \"suites\"", `"kind": "rpm",` + "\n      \"suites\"", `kind: "rpm" is not known`},
		{"archive of suite", "debian/bookworm", "ubuntu/noble", "sets[3].suites[0]"},
		{"option as package", `"g++"`, `"--x"`, "sets[3].packages[0]"},
		{"closure of a source", "\"debian/trixie\"\n      ],", "\"debian/trixie\"\n      ],\n      \"closure\": true,", "sets[2].closure: what a source"},
		{"source of no suite", "\n      \"suites\": [\n        \"debian/trixie\"\n      ],", "", "sets[2].suites: none named"},
		{"path outside", "pool/l/", "../../", "inputs[0].path"},
		{"absolute path", "pool/l/", "/pool/", "inputs[0].path"},
		{"unclean path", "pool/l/", "pool//l/", "inputs[0].path"},
		{"line feed in path", "pool/l/", `pool\n/`, "inputs[0].path"},
		{"size", `"size": 2`, `"size": 0`, "inputs[0].size: 0"},
		{"hash", zeros[:63] + "1", "AA", `inputs[1].sha256: "AA"`},
		{"set that is not there", `"tools"` + "\n      ],\n      \"size\": 3", `"other"` + "\n      ],\n      \"size\": 3", `inputs[1].sets: "other" is no set of kind deb`},
		{"set of another kind", `"tools"` + "\n      ],\n      \"size\": 3", `"go"` + "\n      ],\n      \"size\": 3", `inputs[1].sets: "go" is no set of kind deb`},
		{"archive of another kind", `"archive": "go"`, `"archive": "debian"`, `inputs[2].archive: "debian" holds no input of kind go`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(string(good), tt.from, tt.to, 1)
			if bad == string(good) {
				t.Fatalf("%q is not in the lock file", tt.from)
			}
			l, err := lock.Parse([]byte(bad))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
			if diff := cmp.Diff(lock.Lock{}, l); diff != "" {
				t.Errorf("an error and a value: %s", diff)
			}
		})
	}
}

func TestLoadRequests(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock.json")
	text := `{"mediaType": "application/vnd.kattest.lock.v1+json", "sets": [
	  {"name": "b", "kind": "deb", "suites": ["debian/sid"], "packages": ["z", "ab", "aa"]},
	  {"name": "a", "kind": "go", "packages": ["example.com/m@v1"]}]}`
	text = strings.Replace(text, `"z", `, "", 1)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := lock.LoadRequests(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []lock.Set{
		{Name: "a", Kind: "go", Packages: []string{"example.com/m@v1"}},
		{Name: "b", Kind: "deb", Suites: []string{"debian/sid"}, Packages: []string{"aa", "ab"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The lock files of this repository, which builds read.
func TestShipped(t *testing.T) {
	for file, names := range map[string][]string{
		"../lock.json":                            {"build-root", "firmware", "firmware-root", "go", "kernel-source"},
		"../../examples/mariadb/lock.json":        {"mariadb"},
		"../../examples/busybox/lock.json":        {"busybox"},
		"../../examples/nginx/lock.json":          {"nginx"},
		"../../examples/postgres/lock.json":       {"postgres"},
		"../../examples/redis/lock.json":          {"redis"},
		"../../examples/static/lock.json":         {"static"},
		"../../launcher/image/testdata/lock.json": {"peers"},
		"../../internal/e2e/testdata/lock.json":   {"docker", "nfs"},
	} {
		l, err := lock.Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, name := range names {
			if len(l.Set(name)) == 0 {
				t.Errorf("%s: set %s is empty", file, name)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	good, err := newLock(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := lock.Parse(data)
		if err != nil {
			if diff := cmp.Diff(lock.Lock{}, l); diff != "" {
				t.Errorf("an error and a value: %s", diff)
			}
			return
		}
		again, err := l.Encode()
		if err != nil || string(again) != string(data) {
			t.Errorf("%q became %q, %v", data, again, err)
		}
	})
}
