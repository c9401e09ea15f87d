package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	reader "github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/image/erofs"
)

// The root hash of the sample image. It changes only with the format: then
// every root hash that users have written down changes with it.
const sampleRootHash = "b885998faf7dd6b3338d61a20567e681454702f37577f536b54deb2cfb4bbafd"

func TestPinnedRootHash(t *testing.T) {
	v, _ := convert(t, writeLayout(t, sample(t)))
	if got := v.RootHash.String(); got != sampleRootHash {
		t.Errorf("root hash %s, want %s", got, sampleRootHash)
	}
}

// The tree is checked against one computed here from scratch, as Linux'
// Documentation/admin-guide/device-mapper/verity.rst describes it: SHA-256 of
// salt and block, 128 digests a block, the top level first.
func TestVerityTree(t *testing.T) {
	big := makeImage(t, sampleConfig, []entry{file("big", strings.Repeat("0123456789abcdef", 140*blockSize/16))})
	v, name := convert(t, writeLayout(t, big))
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if v.DataBlocks <= 128 {
		t.Fatalf("%d data blocks: too few for two levels", v.DataBlocks)
	}
	level, tree := data[:v.DataBlocks*blockSize], []byte{}
	for len(level) > blockSize {
		var next []byte
		for block := range slices.Chunk(level, blockSize) {
			sum := sha256.Sum256(append(v.Salt[:], block...))
			next = append(next, sum[:]...)
		}
		next = append(next, make([]byte, -len(next)&(blockSize-1))...)
		tree = append(next, tree...)
		level = next
	}
	if got := pod.Hash(sha256.Sum256(append(v.Salt[:], level...))); got != v.RootHash {
		t.Errorf("root hash %s, want %s", v.RootHash, got)
	}
	if !bytes.Equal(tree, data[v.DataBlocks*blockSize:]) {
		t.Error("the tree behind the data differs")
	}
}

// found is what a file of the image looks like.
type found struct {
	Mode     fs.FileMode
	UID, GID uint32
	Mtime    time.Time
	Rdev     uint32
	Nlink    int
	Target   string
	Content  string
	Xattrs   map[string]string
}

// readBack reads every file of an EROFS image, by path.
func readBack(t testing.TB, name string) map[string]found {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := reader.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]found{}
	err = fs.WalkDir(img, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*reader.Stat)
		e := found{
			Mode: st.Mode, UID: st.UID, GID: st.GID, Mtime: time.Unix(int64(st.Mtime), int64(st.MtimeNs)).UTC(),
			Rdev: st.Rdev, Nlink: st.Nlink, Xattrs: st.Xattrs,
		}
		switch {
		case info.Mode().IsRegular():
			b, err := fs.ReadFile(img, path)
			if err != nil {
				return err
			}
			e.Content = string(b)
		case info.Mode().Type() == fs.ModeSymlink:
			if e.Target, err = fs.ReadLink(img, path); err != nil {
				return err
			}
		}
		out[path] = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMetadataSurvives(t *testing.T) {
	const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw=ep
	old := time.Unix(-86400, 0)
	content := strings.Repeat("x", 3*blockSize+1)
	img := makeImage(t, sampleConfig, []entry{
		{tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700, Uid: 1000, ModTime: built}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/ping", Mode: 0o755, ModTime: built, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability":    capability,
			"SCHILY.xattr.user.note":              "",
			"SCHILY.xattr.trusted.overlay.opaque": "y",
			"SCHILY.xattr.com.apple.provenance":   "x",
		}}, content},
		{tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/su", Mode: 0o4755, ModTime: built}, "#!"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "owned", Mode: 0o2640, Uid: 100000, Gid: 4294967294, ModTime: old}, "o"},
		{tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777, ModTime: built}, ""},
		{tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: built}, ""},
		{tar.Header{Typeflag: tar.TypeBlock, Name: "dev/far", Mode: 0o600, Devmajor: 4095, Devminor: 0xfffff, ModTime: built}, ""},
		{tar.Header{Typeflag: tar.TypeFifo, Name: "run/pipe", Mode: 0o600, ModTime: built}, ""},
		symlink("bin", "usr/bin"),
		symlink("outside", "../../../etc/passwd"),
		hardlink("usr/bin/ping4", "usr/bin/ping"),
		file("empty", ""),
		file("we\nird \xff", "w"),
	})
	_, name := convert(t, writeLayout(t, img))
	zero := time.Unix(0, 0).UTC()
	at := built.UTC()
	ping := found{Mode: 0o755, Mtime: at, Nlink: 2, Content: content, Xattrs: map[string]string{"security.capability": capability, "user.note": ""}}
	link := fs.ModeSymlink | 0o777
	want := map[string]found{
		".":             {Mode: fs.ModeDir | 0o755, Mtime: zero, Nlink: 6},
		"bin":           {Mode: link, Mtime: at, Nlink: 1, Target: "usr/bin"},
		"outside":       {Mode: link, Mtime: at, Nlink: 1, Target: "../../../etc/passwd"},
		"dev":           {Mode: fs.ModeDir | 0o755, Mtime: zero, Nlink: 2},
		"dev/null":      {Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Mtime: at, Nlink: 1, Rdev: 0x103},
		"dev/far":       {Mode: fs.ModeDevice | 0o600, Mtime: at, Nlink: 1, Rdev: 0xffffffff},
		"empty":         {Mode: 0o644, Mtime: at, Nlink: 1},
		"owned":         {Mode: fs.ModeSetgid | 0o640, UID: 100000, GID: 4294967294, Mtime: old.UTC(), Nlink: 1, Content: "o"},
		"run":           {Mode: fs.ModeDir | 0o755, Mtime: zero, Nlink: 2},
		"run/pipe":      {Mode: fs.ModeNamedPipe | 0o600, Mtime: at, Nlink: 1},
		"tmp":           {Mode: fs.ModeDir | fs.ModeSticky | 0o777, Mtime: at, Nlink: 2},
		"usr":           {Mode: fs.ModeDir | 0o755, Mtime: zero, Nlink: 3},
		"usr/bin":       {Mode: fs.ModeDir | 0o755, Mtime: zero, Nlink: 2},
		"usr/bin/ping":  ping,
		"usr/bin/ping4": ping,
		"usr/bin/su":    {Mode: fs.ModeSetuid | 0o755, Mtime: at, Nlink: 1, Content: "#!"},
		"we\nird \xff":  {Mode: 0o644, Mtime: at, Nlink: 1, Content: "w"},
	}
	if diff := cmp.Diff(want, readBack(t, name), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// mergeLayers applies layers and returns what is there: content or target by path.
func mergeLayers(t testing.TB, layers ...[]entry) (map[string]string, error) {
	t.Helper()
	tars := make([][]byte, len(layers))
	for i, l := range layers {
		tars[i] = tarOf(t, l...)
	}
	tr, err := mergeTars(t, tars...)
	if err != nil {
		return nil, err
	}
	return list(t, tr), nil
}

func mergeTars(t testing.TB, layers ...[]byte) (*tree, error) {
	t.Helper()
	sparse := tempSpool(t, 1<<20)
	tr := newTree()
	for _, layer := range layers {
		items, err := index(t.Context(), bytes.NewReader(layer), bytes.NewReader(layer), sparse)
		if err != nil {
			return nil, err
		}
		if err := tr.apply(items); err != nil {
			return nil, err
		}
	}
	return tr, nil
}

func tempSpool(t testing.TB, limit int64) *spool {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	s := &spool{File: f, room: &room{}}
	s.room.left.Store(limit)
	return s
}

func list(t testing.TB, tr *tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(path string, n *node)
	walk = func(path string, n *node) {
		switch {
		case n.Mode.IsDir():
			if path != "" {
				out[path+"/"] = ""
			}
			for name, child := range n.children {
				walk(strings.TrimPrefix(path+"/"+name, "/"), child)
			}
		case n.Mode.IsRegular():
			content, err := io.ReadAll(io.NewSectionReader(n.Content.From, n.Content.Offset, n.Content.Size))
			if err != nil && n.Content.Size > 0 {
				t.Fatal(err)
			}
			out[path] = string(content)
		default:
			out[path] = "-> " + n.Target
		}
	}
	walk("", tr.root)
	return out
}

func TestMerge(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layers [][]entry
		want   map[string]string
	}{
		{"upper wins", [][]entry{{file("a", "1")}, {file("a", "2")}}, map[string]string{"a": "2"}},
		{"within a layer the later wins", [][]entry{{file("a", "1"), file("./a", "2")}}, map[string]string{"a": "2"}},
		{"absolute name", [][]entry{{file("/a", "1")}}, map[string]string{"a": "1"}},
		{"whiteout of a file", [][]entry{{file("a", "1"), file("b", "1")}, {file(".wh.a", "")}}, map[string]string{"b": "1"}},
		{"whiteout of a folder", [][]entry{{file("d/e/f", "1")}, {file(".wh.d", "")}}, map[string]string{}},
		{"whiteout spares its own layer", [][]entry{{file("d/old", "1")}, {file("d/new", "2"), file(".wh.d", "")}}, map[string]string{"d/": "", "d/new": "2"}},
		{"whiteout, then new", [][]entry{{file("d/old", "1")}, {file(".wh.d", ""), file("d/new", "2")}}, map[string]string{"d/": "", "d/new": "2"}},
		{"whiteout of nothing there", [][]entry{{file("a", "1")}, {file("x/.wh.y", ""), file("a/.wh.y", "")}}, map[string]string{"a": "1"}},
		{"whiteout through a link", [][]entry{{file("real/a", "1"), symlink("d", "real")}, {file("d/.wh.a", "")}}, map[string]string{"real/": "", "d": "-> real"}},
		{"opaque", [][]entry{{file("d/old", "1"), file("d/e/old", "1")}, {file("d/new", "2"), file("d/.wh..wh..opq", "")}}, map[string]string{"d/": "", "d/new": "2"}},
		{"AUFS' own files", [][]entry{{file(".wh..wh.plnk", "")}, {file(".wh..wh.aufs", "")}}, map[string]string{}},
		{"whiteout in the lowest layer", [][]entry{{file("a", "1"), file(".wh.a", "")}}, map[string]string{"a": "1"}},
		{"child before parent", [][]entry{{file("d/a", "1"), dir("d")}}, map[string]string{"d/": "", "d/a": "1"}},
		{"folder over folder keeps", [][]entry{{file("d/a", "1")}, {dir("d")}}, map[string]string{"d/": "", "d/a": "1"}},
		{"file over folder", [][]entry{{file("d/a", "1")}, {file("d", "2")}}, map[string]string{"d": "2"}},
		{"folder over file", [][]entry{{file("d", "1")}, {dir("d"), file("d/a", "2")}}, map[string]string{"d/": "", "d/a": "2"}},
		{"folder over link", [][]entry{{symlink("d", "e"), file("e/a", "1")}, {dir("d")}}, map[string]string{"d/": "", "e/": "", "e/a": "1"}},
		{"through a link", [][]entry{{dir("usr/bin"), symlink("bin", "usr/bin")}, {file("bin/a", "1")}}, map[string]string{"usr/": "", "usr/bin/": "", "usr/bin/a": "1", "bin": "-> usr/bin"}},
		{"through an absolute link", [][]entry{{symlink("x/bin", "/usr"), file("x/bin/a", "1")}}, map[string]string{"x/": "", "x/bin": "-> /usr", "usr/": "", "usr/a": "1"}},
		{"through a link out of the root", [][]entry{{symlink("d/up", "../../../.."), file("d/up/a", "1")}}, map[string]string{"d/": "", "d/up": "-> ../../../..", "a": "1"}},
		{"hard link keeps what it linked", [][]entry{{file("a", "1")}, {hardlink("b", "a"), file("a", "2")}}, map[string]string{"a": "2", "b": "1"}},
		{"hard link to a link", [][]entry{{symlink("a", "x"), hardlink("b", "/a")}}, map[string]string{"a": "-> x", "b": "-> x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mergeLayers(t, tt.layers...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	with := func(e entry, change func(*tar.Header)) []entry {
		change(&e.Header)
		return []entry{e}
	}
	deep := strings.Repeat("d/", maxPath/2-1)
	for _, tt := range []struct {
		name  string
		layer []entry
		err   string
	}{
		{"dot dot", []entry{file("a/../../b", "1")}, `part ".."`},
		{"long part", []entry{file(strings.Repeat("n", 256), "1")}, "part of 256 bytes, more than 255"},
		{"long name", []entry{dir(strings.Repeat("n/", 2048))}, "name of 4096 bytes, more than 4095"},
		{"path grown through a link", []entry{dir(deep), symlink("l", deep), file("l/aaa", "1")}, "path of 4096 bytes, more than 4095"},
		{"through a file", []entry{file("a", "1"), file("a/b", "2")}, `tar entry 1, "a/b": "a" on the way: not a directory`},
		{"loop", []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "1")}, "too many symbolic links"},
		{"root is a file", []entry{file("./.", "1")}, "the root is a directory"},
		{"link to nothing", []entry{hardlink("a", "b")}, `hard link to "b": no such entry`},
		{"link to a folder", []entry{dir("b"), hardlink("a", "b")}, `hard link to "b": a directory`},
		{"link out", []entry{hardlink("a", "../../etc/passwd")}, `hard link to "../../etc/passwd"`},
		{"whiteout of dot dot", []entry{file("d/a", "1"), file("d/.wh...", "")}, "a whiteout of nothing"},
		{"whiteout of no name", []entry{file(".wh.", "")}, "a whiteout of nothing"},
		{"symlink to nothing", []entry{{tar.Header{Typeflag: tar.TypeSymlink, Name: "a"}, ""}}, "target of 0 bytes"},
		{"device", with(file("a", ""), func(h *tar.Header) { h.Typeflag, h.Devmajor = tar.TypeChar, 4096 }), "device 4096:0 is not of 12 and 20 bits"},
		{"owner", with(file("a", ""), func(h *tar.Header) { h.Uid = 1 << 32 }), "owner 4294967296:0 is not of 32 bits"},
		{"contiguous file", with(file("a", ""), func(h *tar.Header) { h.Typeflag = tar.TypeCont }), "entry of type '7'"},
		{"big attribute", with(file("a", ""), func(h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.a": strings.Repeat("x", 1<<16)}
		}), "value of 65536"},
		{"many attributes", with(file("a", ""), func(h *tar.Header) {
			h.PAXRecords = map[string]string{}
			for i := range 3 {
				h.PAXRecords[fmt.Sprint("SCHILY.xattr.user.", i)] = strings.Repeat("x", 1<<16-1)
			}
		}), "extended attributes of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mergeLayers(t, tt.layer)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %d entries, %v, want error %q", len(got), err, tt.err)
			}
		})
	}
}

// Whatever the tar, merging ends without a panic, and what it accepts is a file
// system that is written and read back with the same names.
func FuzzMerge(f *testing.F) {
	f.Add(tarOf(f, dir("d"), file("d/a", "1"), symlink("l", "d"), hardlink("h", "d/a")), tarOf(f, file("l/.wh.a", ""), file("d/.wh..wh..opq", "")))
	f.Add(tarOf(f, symlink("a", ".."), file("a/b", "x")), []byte{})
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		tr, err := mergeTars(t, lower, upper)
		if err != nil {
			return
		}
		want := slices.Sorted(maps.Keys(list(t, tr)))
		tr.root.seal()
		plan, err := erofs.Plan(tr.root.Inode)
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(t.TempDir(), "root.img"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if _, err := plan.WriteTo(out); err != nil {
			t.Fatal(err)
		}
		var got []string
		for path, e := range readBack(t, out.Name()) {
			if e.Mode.IsDir() {
				path += "/"
			}
			if path != "./" {
				got = append(got, path)
			}
		}
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Fatalf("names %q, want %q", got, want)
		}
	})
}

func TestConvertLeavesNothingBeside(t *testing.T) {
	img, err := Open(context.Background(), writeLayout(t, sample(t)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, err := os.Create(filepath.Join(dir, "root.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := img.Convert(ctx, root, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}
