package mirror

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFromFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	mirrors := write("mirrors.list", "# ours\nhttp://m1.example/debian\tpriority:1\nhttp://m2.example/debian/\n")
	list := write("sources.list", `
# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb http://one.example/debian bookworm main contrib # with a comment
deb [ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] http://two.example/debian/ bookworm-updates main
deb [signed-by=/usr/share/keyrings/other.gpg] http://other.example/debian bookworm main
deb http://docker.example/linux/debian bookworm stable
deb http://pg.example/debian bookworm-pgdg main
deb [broken http://broken.example/debian bookworm main
deb http://security.example/debian-security bookworm-security main
deb cdrom:[Debian]/ bookworm main
`)
	write("parts/debian.sources", fmt.Sprintf(`Types: deb deb-src
# a comment
URIs: mirror+file://%s
 http://three.example/debian
Suites: bookworm
 bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: http://inline.example/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

types: deb
uris: http://security2.example/debian-security
suites: stable-security
components: main
`, mirrors))
	write("parts/ignored.txt", "deb http://ignored.example/debian bookworm main\n")
	for archive, want := range map[string][]string{
		"debian": {
			"http://one.example/debian", "http://two.example/debian",
			"http://m1.example/debian", "http://m2.example/debian", "http://three.example/debian",
		},
		"debian-security": {"http://security.example/debian-security", "http://security2.example/debian-security"},
	} {
		got, err := fromFiles(list, filepath.Join(dir, "parts"), archive)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", archive, diff)
		}
	}
	if got, err := fromFiles(filepath.Join(dir, "absent"), t.TempDir(), "debian"); err == nil || got != nil {
		t.Errorf("no sources: got %v, %v", got, err)
	}
	if got, err := fromFiles(list, dir, "other"); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("unknown archive: got %v, %v", got, err)
	}
}

func TestProxies(t *testing.T) {
	for list, want := range map[string][]string{
		"https://a.example,direct":                 {"https://a.example"},
		"https://a.example/|file:///b,https://c.e": {"https://a.example", "file:///b", "https://c.e"},
		"https://a.example,off,https://c.e":        {"https://a.example"},
		"direct":                                   nil,
		"off":                                      nil,
	} {
		got, err := proxies(list)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("GOPROXY=%s: %v %s", list, err, diff)
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add("deb [signed-by=x] http://a bookworm main\n")
	f.Add("Types: deb\nURIs: http://a\n http://b\nSuites: sid\nComponents: main\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseOneLine(text), parseDeb822(text)...) {
			if s.uri == "" || s.suite == "" {
				t.Errorf("%q gave %+v", text, s)
			}
		}
	})
}
