package debian

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// member is an entry of a package to be made.
type member struct {
	name, link, data string
	kind             byte
	mode             int64
}

// pack makes a package with these entries: an ar file (deb(5)) of plain tar files.
func pack(t *testing.T, name string, members ...member) string {
	t.Helper()
	control := tarOf(t, member{
		name: "./control", kind: tar.TypeReg, mode: 0o644,
		data: "Package: " + name + "\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: none\n",
	})
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, part := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", control}, {"data.tar", tarOf(t, members...)}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", part.name, 0, 0, 0, 0o644, len(part.data))
		b.Write(part.data)
		if len(part.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	file := filepath.Join(t.TempDir(), name+".deb")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		hdr := &tar.Header{Name: m.name, Linkname: m.link, Typeflag: m.kind, Mode: m.mode, Size: int64(len(m.data)), ModTime: time.Unix(1e9, 0)}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func dir(name string) member { return member{name: name, kind: tar.TypeDir, mode: 0o755} }
func file(name, data string, mode int64) member {
	return member{name: name, kind: tar.TypeReg, mode: mode, data: data}
}

// list describes every entry below root: mode, time, link or content.
func list(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		what := ""
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			all = append(all, fmt.Sprintf("%s -> %s", name, target))
			return nil
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		all = append(all, fmt.Sprintf("%s %v %d%s", name, info.Mode(), info.ModTime().Unix(), what))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestExtract(t *testing.T) {
	debs := []string{
		pack(t, "a", dir("./"), dir("./bin/"), file("./bin/sh", "shell", 0o755), dir("./tmp/"),
			member{name: "./bin/link", kind: tar.TypeSymlink, link: "/bin/sh"}),
		pack(t, "b", dir("./"), dir("./usr/"), dir("./usr/bin/"), file("./usr/bin/mawk", "awk", 0o755),
			member{name: "./usr/bin/hard", kind: tar.TypeLink, link: "./usr/bin/mawk"}),
		// base-files of a system whose packages know of the merged /usr.
		pack(t, "base", dir("./"), member{name: "./bin", kind: tar.TypeSymlink, link: "usr/bin"},
			member{name: "./lib64", kind: tar.TypeSymlink, link: "usr/lib64"}),
		pack(t, "c", dir("./"), dir("./lib/"), dir("./lib/x86_64-linux-gnu/"), file("./lib/x86_64-linux-gnu/libc.so", "c", 0o644),
			member{name: "./tmp/", kind: tar.TypeDir, mode: 0o700}, file("./usr/bin/gcc", "gcc", 0o4755)),
	}
	var lists [][]string
	for _, reverse := range []bool{false, true} {
		if reverse {
			slices.Reverse(debs)
		}
		root := filepath.Join(t.TempDir(), "root")
		if err := Extract(t.Context(), debs, root); err != nil {
			t.Fatal(err)
		}
		lists = append(lists, list(t, root))
		for name, want := range map[string]string{
			"bin/sh": "shell", "usr/bin/sh": "shell", "usr/bin/awk": "awk", "usr/bin/hard": "awk", "usr/bin/cc": "gcc",
			"usr/lib/x86_64-linux-gnu/libc.so": "c",
		} {
			if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v, want %q", name, got, err, want)
			}
		}
		for name, want := range map[string]fs.FileMode{
			"tmp": fs.ModeDir | 0o700, "usr/bin/gcc": fs.ModeSetuid | 0o755, "etc/passwd": 0o644,
		} {
			info, err := os.Lstat(filepath.Join(root, name))
			if err != nil || info.Mode() != want {
				t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
			}
		}
	}
	if diff := cmp.Diff(lists[0], lists[1]); diff != "" {
		t.Errorf("the order of the packages matters: %s", diff)
	}
}

func TestExtractRefuses(t *testing.T) {
	outside := t.TempDir()
	for _, tt := range []struct {
		name string
		debs []string
		want string
	}{
		{"parent", []string{pack(t, "a", file("../evil", "x", 0o644))}, `"../evil" leads outside`},
		{"parent inside", []string{pack(t, "a", file("./usr/../../evil", "x", 0o644))}, "leads outside"},
		{"absolute", []string{pack(t, "a", file("/evil", "x", 0o644))}, `"/evil" leads outside`},
		{"hard link", []string{pack(t, "a", member{name: "./passwd", kind: tar.TypeLink, link: "../../etc/passwd"})}, "leads outside"},
		{"through a link", []string{pack(t, "a", member{name: "./out", kind: tar.TypeSymlink, link: outside}, file("./out/evil", "x", 0o644))}, "escapes"},
		{"through a relative link", []string{pack(t, "a", member{name: "./out", kind: tar.TypeSymlink, link: "../.."}, file("./out/evil", "x", 0o644))}, "escapes"},
		{"link of a folder to elsewhere", []string{pack(t, "a", member{name: "./bin", kind: tar.TypeSymlink, link: outside})}, "bin"},
		{"device", []string{pack(t, "a", member{name: "./dev", kind: tar.TypeChar, mode: 0o666})}, "entry of type '3'"},
		{"twice", []string{pack(t, "a", file("./bin/x", "1", 0o644)), pack(t, "b", file("./usr/bin/x", "2", 0o644))}, "usr/bin/x is in "},
		{"file and folder", []string{pack(t, "a", file("./x", "1", 0o644)), pack(t, "b", dir("./x/"), file("./x/y", "", 0o644))}, "x"},
		{"no package", []string{write(t, "not a package")}, "dpkg-deb: error"},
		{"no file", []string{filepath.Join(outside, "absent.deb")}, "No such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Extract(t.Context(), tt.debs, filepath.Join(t.TempDir(), "root"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
			if entries, _ := os.ReadDir(outside); len(entries) > 0 {
				t.Errorf("outside is %v", entries)
			}
		})
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// dpkg-deb must read what the tests above pack: else they refuse for its reasons.
func TestPack(t *testing.T) {
	deb := pack(t, "a", dir("./"), file("./x", "1", 0o644))
	out, err := exec.Command("dpkg-deb", "--contents", deb).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "./x") {
		t.Errorf("%v: %s", err, out)
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(tarOf(f, dir("./"), file("./bin/sh", "x", 0o755), member{name: "./a", kind: tar.TypeLink, link: "./bin/sh"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = walkTar(bytes.NewReader(data), func(hdr *tar.Header, _ io.Reader) error {
			if !filepath.IsLocal(hdr.Name) || hdr.Typeflag == tar.TypeLink && !filepath.IsLocal(hdr.Linkname) {
				t.Errorf("%+v leads outside", hdr)
			}
			return nil
		})
	})
}
