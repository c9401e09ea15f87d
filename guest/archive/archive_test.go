package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/archive"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// tarOf is an archive of those headers; a regular file holds its Linkname.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.ModTime.IsZero() {
			h.ModTime = noon
		}
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tree is what is below a folder, by name: mode, and what a file holds or a link says.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		info, err := e.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			content = string(b)
		case info.Mode()&fs.ModeSymlink != 0:
			if content, err = os.Readlink(name); err != nil {
				return err
			}
		}
		all[rel] = info.Mode().String() + " " + content
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	delete(all, ".")
	return all
}

// Each attack beside its harmless twin.
func TestUnpack(t *testing.T) {
	file := func(name, content string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Linkname: content}
	}
	folder := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o750} }
	symlink := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	old := map[string]string{"old": "-rw------- old", "dir": "drwx------ ", "dir/in": "-rw------- in", "out": "Lrwxrwxrwx ../outside", "back": "Lrwxrwxrwx dir"}
	whole := tarOf(t, file("whole", "1"), file("cut", strings.Repeat("x", 3000)))
	for _, tt := range []struct {
		name    string
		archive []byte
		keep    bool
		want    map[string]string // beside the old; "" is gone
		err     string
	}{
		{"nothing", tarOf(t), false, nil, ""},
		{
			"files and folders", tarOf(t, folder("a/"), file("a/b", "c"), file("deep/er/file", "d")), false,
			map[string]string{"a": "drwxr-x--- ", "a/b": "-rw-r--r-- c", "deep": "drwxr-xr-x ", "deep/er": "drwxr-xr-x ", "deep/er/file": "-rw-r--r-- d"},
			"",
		},
		{"in gzip", zipped(t, tarOf(t, file("a", "b"))), false, map[string]string{"a": "-rw-r--r-- b"}, ""},
		{"over a file", tarOf(t, file("old", "new")), false, map[string]string{"old": "-rw-r--r-- new"}, ""},
		{"folders are merged", tarOf(t, folder("dir"), file("dir/new", "1")), false, map[string]string{"dir": "drwxr-x--- ", "dir/new": "-rw-r--r-- 1"}, ""},
		{"the folder itself stays", tarOf(t, folder("./"), file("./a", "1")), false, map[string]string{"a": "-rw-r--r-- 1"}, ""},
		{
			"set-uid and sticky", tarOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "s", Mode: 0o4755}, tar.Header{Typeflag: tar.TypeDir, Name: "t", Mode: 0o1777}), false,
			map[string]string{"s": "urwxr-xr-x ", "t": "dtrwxrwxrwx "},
			"",
		},
		{"FIFO", tarOf(t, tar.Header{Typeflag: tar.TypeFifo, Name: "dir/fifo", Mode: 0o622}), false, map[string]string{"dir/fifo": "prw--w--w- "}, ""},

		{"folder by a file", tarOf(t, file("dir", "f")), false, map[string]string{"dir": "-rw-r--r-- f", "dir/in": ""}, ""},
		{"folder by a file, not wanted", tarOf(t, file("dir", "f")), true, nil, `entry 1, "dir": cannot overwrite a directory with a non-directory`},
		{"file by a folder", tarOf(t, folder("old")), false, map[string]string{"old": "drwxr-x--- "}, ""},
		{"file by a folder, not wanted", tarOf(t, folder("old")), true, nil, `entry 1, "old": cannot overwrite a non-directory with a directory`},

		{"symbolic link", tarOf(t, symlink("l", "/etc/passwd"), symlink("m", "../..")), false, map[string]string{"l": "Lrwxrwxrwx /etc/passwd", "m": "Lrwxrwxrwx ../.."}, ""},
		{"through a link that stays", tarOf(t, symlink("l", "dir"), file("l/new", "1")), false, map[string]string{"l": "Lrwxrwxrwx dir", "dir/new": "-rw-r--r-- 1"}, ""},
		{"through an absolute link", tarOf(t, symlink("l", "/"), file("l/new", "1")), false, map[string]string{"l": "Lrwxrwxrwx /"}, `entry 2, "l/new": a symbolic link in its path leads out`},
		{"through a link upwards", tarOf(t, symlink("l", "dir/../.."), file("l/outside/new", "1")), false, map[string]string{"l": "Lrwxrwxrwx dir/../.."}, "leads out of the folder"},
		{"through an old link outwards", tarOf(t, file("out/new", "1")), false, nil, "leads out of the folder"},
		{"folder through it", tarOf(t, folder("out/new")), false, nil, "leads out of the folder"},
		{"over the link itself", tarOf(t, file("out", "1")), false, map[string]string{"out": "-rw-r--r-- 1"}, ""},
		{"over an old link inwards", tarOf(t, file("back/in", "1")), false, map[string]string{"dir/in": "-rw-r--r-- 1"}, ""},

		{"hard link", tarOf(t, hard("l", "dir/in")), false, map[string]string{"l": "-rw------- in"}, ""},
		{"hard link outwards", tarOf(t, hard("l", "../outside/secret")), false, nil, `name "../outside/secret" holds ".."`},
		{"hard link by a link outwards", tarOf(t, hard("l", "out/secret")), false, nil, "leads out of the folder"},
		{"hard link, absolute", tarOf(t, hard("l", "/etc/passwd")), false, nil, `hard link: name "/etc/passwd" is absolute`},
		{"hard link to nothing", tarOf(t, hard("l", "nothing")), false, nil, "no such file"},

		{"upwards", tarOf(t, file("../outside/new", "1")), false, nil, `name "../outside/new" holds ".."`},
		{"upwards in the middle", tarOf(t, file("dir/../../outside/new", "1")), false, nil, `holds ".."`},
		{"dots that are a name", tarOf(t, file("dir/..a", "1")), false, map[string]string{"dir/..a": "-rw-r--r-- 1"}, ""},
		{"absolute", tarOf(t, file("/new", "1")), false, nil, `name "/new" is absolute`},
		{"character device", tarOf(t, tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}), false, nil, "a device node"},
		{"block device", tarOf(t, tar.Header{Typeflag: tar.TypeBlock, Name: "vda", Devmajor: 254}), false, nil, "a device node"},
		{"unknown type", tarOf(t, tar.Header{Typeflag: 'Z', Name: "z"}), false, nil, "type 'Z' is unknown"},
		{"no archive", []byte(strings.Repeat("junk", 512)), false, nil, "archive: entry 1: "},
		{"no gzip", []byte("\x1f\x8bjunk"), false, nil, "archive: "},
		{"cut", whole[:3000], false, map[string]string{"whole": "-rw-r--r-- 1"}, `entry 2, "cut": content: unexpected EOF`},
		{"cut in gzip", zipped(t, whole)[:40], false, nil, "unexpected EOF"},
		{"not cut", whole, false, map[string]string{"whole": "-rw-r--r-- 1", "cut": "-rw-r--r-- " + strings.Repeat("x", 3000)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			above := t.TempDir()
			dir := filepath.Join(above, "folder")
			for name, content := range map[string]string{"folder/old": "old", "folder/dir/in": "in", "outside/secret": "s"} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(above, name)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(above, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for name, to := range map[string]string{"out": "../outside", "back": "dir"} {
				if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			err := archive.Unpack(dir, bytes.NewReader(tt.archive), archive.Options{KeepKinds: tt.keep})
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			want := map[string]string{}
			for _, m := range []map[string]string{old, tt.want} {
				for name, is := range m {
					if want[name] = is; is == "" {
						delete(want, name)
					}
				}
			}
			if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(map[string]string{"secret": "-rw------- s"}, tree(t, filepath.Join(above, "outside"))); diff != "" {
				t.Errorf("outside of the folder (-want +got):\n%s", diff)
			}
		})
	}
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What is packed comes out again: contents, links, modes, times, attributes.
func TestPack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write := func(name, content string, mode fs.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(from, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(from, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(from, "sub/empty"), 0o755))
	write("a", "1", 0o640)
	write("sub/suid", "2", fs.ModeSetuid|0o755)
	write("sub/"+strings.Repeat("n", 250), strings.Repeat("big", 1<<18), 0o600)
	must(os.Link(filepath.Join(from, "a"), filepath.Join(from, "sub/again")))
	must(os.Symlink("/nowhere", filepath.Join(from, "link")))
	must(unix.Mkfifo(filepath.Join(from, "fifo"), 0o600))
	must(unix.Mknod(filepath.Join(from, "socket"), unix.S_IFSOCK|0o600, 0))
	must(os.Chtimes(filepath.Join(from, "sub"), noon, noon.Add(123456789)))
	capabilities := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	privileged := unix.Lsetxattr(filepath.Join(from, "a"), "security.capability", []byte(capabilities), 0) == nil

	var b bytes.Buffer
	must(archive.Pack(&b, from))
	must(archive.Unpack(to, &b, archive.Options{}))
	want := tree(t, from)
	delete(want, "socket")
	got := tree(t, filepath.Join(to, filepath.Base(from)))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	in := func(name string) string { return filepath.Join(to, filepath.Base(from), name) }
	info, err := os.Stat(in("sub"))
	must(err)
	if !info.ModTime().Equal(noon.Add(123456789)) {
		t.Errorf("time %v", info.ModTime())
	}
	one, err := os.Stat(in("a"))
	must(err)
	two, err := os.Stat(in("sub/again"))
	must(err)
	if !os.SameFile(one, two) || one.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Error("a hard link became a file of its own")
	}
	if privileged {
		value := make([]byte, 64)
		n, err := unix.Lgetxattr(in("a"), "security.capability", value)
		if err != nil || string(value[:n]) != capabilities {
			t.Errorf("capabilities %x, %v", value[:max(0, n)], err)
		}
	}
}

// Names are docker's: those of what is asked for, in its own words.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"d/f": "1", "d/e/g": "2"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("d", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("d/gone", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, stat, names string }{
		{"/d", "d 0700 d ", "d/ d/e/ d/e/g d/f"},
		{"/d/", "d 0700 d ", "d/ d/e/ d/e/g d/f"},
		{"/d/.", ". 0700 d ", "./ ./e/ ./e/g ./f"},
		{"/d/f", "f 0600 - ", "f"},
		{"d/f", "f 0600 - ", "f"},
		{"/l", "l 0777 L /d", "l"},
		{"/l/", "l 0700 d ", "l/ l/e/ l/e/g l/f"},
		{"/l/f", "f 0600 - ", "f"},
		{"/dangling", "dangling 0777 L /d/gone", "dangling"},
		{"/x/../d/f", "f 0600 - ", "f"},
		{"/gone", "not found", ""},
		{"/dangling/", "not found", ""},
		{"", "refused", ""},
		{"/d\x00", "refused", ""},
	} {
		path := tt.path
		if path != "" {
			path = dir + "/" + path
		}
		s, err := archive.Lookup(path)
		got := ""
		switch {
		case os.IsNotExist(err):
			got = "not found"
		case err != nil:
			got = "refused"
		default:
			kind := strings.TrimLeft(s.Mode.String()[:1], " ")
			got = fmt.Sprintf("%s %04o %s %s", s.Name, s.Mode.Perm(), kind, strings.TrimPrefix(s.LinkTarget, dir))
		}
		if got != tt.stat {
			t.Errorf("%q is %q, want %q", tt.path, got, tt.stat)
		}
		var b bytes.Buffer
		if err := archive.Pack(&b, path); (err == nil) != (tt.names != "") {
			t.Errorf("%q: %v", tt.path, err)
			continue
		}
		var names []string
		for r := tar.NewReader(&b); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			names = append(names, h.Name)
		}
		if got := strings.Join(names, " "); tt.names != "" && got != tt.names {
			t.Errorf("%q holds %q, want %q", tt.path, got, tt.names)
		}
	}
}

func TestOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("giving files away takes root")
	}
	dir := t.TempDir()
	data := tarOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o4755}, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "f"})
	if err := archive.Unpack(dir, bytes.NewReader(data), archive.Options{Owner: &archive.Owner{UID: 7, GID: 8}}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"f": fs.ModeSetuid | 0o755, "l": fs.ModeSymlink | 0o777} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 7 || st.Gid != 8 || info.Mode() != mode {
			t.Errorf("%s: %d:%d, %v", name, st.Uid, st.Gid, info.Mode())
		}
	}
}

// Whatever the bytes, nothing outside of the folder changes.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ".."}, tar.Header{Typeflag: tar.TypeReg, Name: "l/x", Linkname: "1"}))
	f.Add(tarOf(f, tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "../beside"}))
	f.Add(tarOf(f, tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}, tar.Header{Typeflag: tar.TypeFifo, Name: "d/f"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		above := t.TempDir()
		dir := filepath.Join(above, "folder")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(above, "beside"), []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = archive.Unpack(dir, bytes.NewReader(data), archive.Options{})
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"beside": "-rw------- 1"}, tree(t, above)); diff != "" {
			t.Errorf("outside of the folder (-want +got):\n%s", diff)
		}
	})
}
