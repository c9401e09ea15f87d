package debian

import (
	"strings"
	"testing"
)

func TestVersionOf(t *testing.T) {
	const (
		one = "1111111111111111111111111111111111111111111111111111111111111111"
		two = "2222222222222222222222222222222222222222222222222222222222222222"
	)
	stanzas := "Package: p\nVersion: 1:2-3\nChecksums-Sha256:\n " + one + " 10 p_2.orig.tar.xz\n " + two + " 20 p_2-3.debian.tar.xz\n\n" +
		"Package: p\nVersion: 2-4\nChecksums-Sha256:\n " + one + " 10 p_2.orig.tar.xz\n " + one + " 20 p_2-4.debian.tar.xz\n\n"
	orig := printedFile{name: "p_2.orig.tar.xz", sha256: one}
	for _, tt := range []struct {
		name  string
		files []printedFile
		want  string
	}{
		{"an epoch", []printedFile{orig, {name: "p_2-3.debian.tar.xz", sha256: two}}, "1:2-3"},
		{"the same orig", []printedFile{orig, {name: "p_2-4.debian.tar.xz", sha256: one}}, "2-4"},
		{"other bytes", []printedFile{orig, {name: "p_2-4.debian.tar.xz", sha256: two}}, ""},
		{"no files", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := versionOf(stanzas, "p", tt.files)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestPrintedRefuses(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"'http://m/p.deb' p_1_all.deb 3", `apt-get printed "'http`},
		{"'http://m/p.deb' p_1_all.deb three SHA256:aa", "invalid syntax"},
		{"'http://m/p.deb' p_1_all.deb 3 MD5Sum:aa", "no SHA-256"},
	} {
		if got, err := printed(tt.line); got != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v", tt.line, got, err)
		}
	}
}
