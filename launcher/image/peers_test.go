package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// peers are the packages of testdata/lock.json, unpacked: erofs-utils and
// cryptsetup of Debian 13, which run on their own libraries.
type peers struct{ root string }

var unpackPeers = sync.OnceValues(func() (peers, error) {
	l, err := lock.Load("testdata/lock.json")
	if err != nil {
		return peers{}, err
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return peers{}, err
	}
	cache := filepath.Join(user, "kattest")
	ctx := context.Background()
	debs, err := (&fetch.Fetcher{Cache: cache}).GetAll(ctx, l.Set("peers"))
	if err != nil {
		return peers{}, err
	}
	root, err := os.MkdirTemp("", "kattest-peers-")
	if err != nil {
		return peers{}, err
	}
	return peers{root}, debian.Extract(ctx, debs, root)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if p, err := unpackPeers(); err == nil {
		_ = os.RemoveAll(p.root)
	}
	os.Exit(code)
}

// run runs a peer and returns what it says.
func (p peers) run(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	out, err := p.command(name, args...).CombinedOutput()
	return string(out), err
}

func (p peers) command(name string, args ...string) *exec.Cmd {
	lib := filepath.Join(p.root, "usr/lib/x86_64-linux-gnu")
	line := append([]string{"--library-path", lib, filepath.Join(p.root, "usr", name)}, args...)
	return exec.Command(filepath.Join(lib, "ld-linux-x86-64.so.2"), line...)
}

func getPeers(t testing.TB) peers {
	t.Helper()
	p, err := unpackPeers()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// everything is a layer with what the formats can say, as long as mkfs.erofs
// takes it from a tar file, too.
func everything() []entry {
	const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	hole := strings.Repeat("\x00", 1<<20)
	attrs := map[string]string{
		"SCHILY.xattr.security.capability": capability,
		"SCHILY.xattr.user.note":           "n",
		"SCHILY.xattr.trusted.t":           strings.Repeat("v", 3000),
	}
	entries := []entry{
		dir("d"),
		{tar.Header{Typeflag: tar.TypeReg, Name: "d/caps", Mode: 0o4755, Uid: 7, Gid: 100000, ModTime: built, PAXRecords: attrs}, "capable"},
		hardlink("d/same", "d/caps"), hardlink("again", "d/same"),
		symlink("link", "d/caps"), symlink("far", strings.Repeat("x/", 2040)), hardlink("link2", "link"),
		{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: built}, ""},
		{tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o600, Devmajor: 259, Devminor: 70000, ModTime: built}, ""},
		{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600, ModTime: built}, ""},
		file("sparse", hole+"in the middle"+hole+"end"), file("zeros", hole),
		file(strings.Repeat("n", 255), "long name"),
		file(strings.Repeat("deep/", 400)+"f", "deep"),
		dir("empty"), dir("many"), dir("sizes"),
	}
	for n := range 400 {
		entries = append(entries, dir(strings.Repeat("deep/", n+1)))
	}
	for _, size := range []int{0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 6144, 6145, 1 << 20} {
		entries = append(entries, file(fmt.Sprintf("sizes/%d", size), strings.Repeat("0123456789abcde\n", size/16+1)[:size]))
	}
	for i := range 1000 { // several blocks of names, some before "." in order
		entries = append(entries, file(fmt.Sprintf("many/%c%d", "!-.Az~"[i%6], i), "m"))
	}
	for i := range entries { // mkfs.erofs 1.8.6 takes .5 s for 5 ns
		entries[i].ModTime = built.Truncate(time.Second)
	}
	return entries
}

// What the file system's own tools read is what they make of the same tar file.
func TestSameAsMkfs(t *testing.T) {
	p := getPeers(t)
	_, name := convert(t, writeLayout(t, makeImage(t, sampleConfig, everything())))
	if out, err := p.run(t, "bin/fsck.erofs", name); err != nil {
		t.Fatalf("fsck.erofs: %v: %s", err, out)
	}
	layer := filepath.Join(t.TempDir(), "layer.tar")
	if err := os.WriteFile(layer, tarOf(t, everything()...), 0o600); err != nil {
		t.Fatal(err)
	}
	peer := filepath.Join(t.TempDir(), "peer.img")
	if out, err := p.run(t, "bin/mkfs.erofs", "--tar=f", peer, layer); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	got, want := extract(t, p, name), extract(t, p, peer)
	for _, tree := range []map[string]string{got, want} {
		delete(tree, ".")     // ours has a time of its own
		delete(tree, "zeros") // fsck.erofs 1.8.6 leaves out a hole at a file's end
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-mkfs.erofs +ours):\n%.8000s", diff)
	}
	// The twin: a file system that is damaged is told from one that is not.
	damaged, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	copy(damaged[4096:], make([]byte, 64))
	overwrite(t, name, damaged)
	if out, err := p.run(t, "bin/fsck.erofs", name); err == nil {
		t.Errorf("fsck.erofs takes a root inode of zeros: %s", out)
	}
}

// extract has fsck.erofs write the files of an image, and lists them: their
// metadata, and for hard links the first name.
func extract(t *testing.T, p peers, name string) map[string]string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the tool makes devices, and files of other owners")
	}
	dir := filepath.Join(t.TempDir(), "files")
	if out, err := p.run(t, "bin/fsck.erofs", "--extract="+dir, "--preserve", name); err != nil {
		t.Fatalf("fsck.erofs: %v: %s", err, out)
	}
	seen := map[uint64]string{}
	list := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if first, ok := seen[st.Ino]; ok {
			list[rel] = "is " + first
			return nil
		}
		seen[st.Ino] = rel
		say := fmt.Sprintf("%o %d:%d %d.%d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch d.Type() {
		case 0:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			say += fmt.Sprintf(" %d links, %d bytes, %x", st.Nlink, len(data), sha256.Sum256(data))
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			say += " to " + target
		case fs.ModeDir:
		default:
			say += fmt.Sprintf(" device %x", st.Rdev)
		}
		list[rel] = say
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A second reader agrees on attributes and links, which fsck.erofs does not
// write out.
func TestSameForSecondReader(t *testing.T) {
	p := getPeers(t)
	_, name := convert(t, writeLayout(t, makeImage(t, sampleConfig, everything())))
	layer := filepath.Join(t.TempDir(), "layer.tar")
	if err := os.WriteFile(layer, tarOf(t, everything()...), 0o600); err != nil {
		t.Fatal(err)
	}
	peer := filepath.Join(t.TempDir(), "peer.img")
	if out, err := p.run(t, "bin/mkfs.erofs", "--tar=f", "-Enoinline_data", peer, layer); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	got, want := readBack(t, name), readBack(t, peer)
	delete(got, ".")
	delete(want, ".")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-mkfs.erofs +ours):\n%.8000s", diff)
	}
	if got["d/same"].Nlink != 3 || got["link2"].Nlink != 2 {
		t.Errorf("%d and %d links, want 3 and 2", got["d/same"].Nlink, got["link2"].Nlink)
	}
}

// The tree is what veritysetup takes, and a bit of the data is not.
func TestVeritysetupAgrees(t *testing.T) {
	p := getPeers(t)
	v, name := convert(t, writeLayout(t, makeImage(t, sampleConfig, everything())))
	verify := func() (string, error) {
		return p.run(t, "sbin/veritysetup", "verify", "--no-superblock", "--hash=sha256", "--format=1",
			"--data-block-size=4096", "--hash-block-size=4096", fmt.Sprint("--data-blocks=", v.DataBlocks),
			fmt.Sprint("--hash-offset=", v.DataBlocks*blockSize), "--salt="+v.Salt.String(), name, name, v.RootHash.String())
	}
	if out, err := verify(); err != nil {
		t.Fatalf("veritysetup: %v: %s", err, out)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[v.DataBlocks*blockSize-1] ^= 1
	overwrite(t, name, data)
	if out, err := verify(); err == nil {
		t.Errorf("veritysetup takes another bit: %s", out)
	}
}

// Runs of zeros take no room, whether the tar file has them or knows of them.
func TestHolesTakeNoRoom(t *testing.T) {
	const size = 64 << 20
	content := make([]byte, size)
	copy(content[size/2:], "in the middle")
	dense, _ := convert(t, writeLayout(t, makeImage(t, sampleConfig, []entry{file("disk", string(content))})))
	if dense.DataBlocks > 32 {
		t.Errorf("%d blocks for a file of 16 that are not zeros", dense.DataBlocks)
	}
	sparse := sparseTar(t, size, "in the middle")
	if len(sparse) > 64<<10 {
		t.Fatalf("a tar file of %d bytes is not sparse", len(sparse))
	}
	v, name := convert(t, writeLayout(t, imageOfTars(t, sparse)))
	if v.DataBlocks != dense.DataBlocks {
		t.Errorf("%d blocks, from a file with holes in tar %d", dense.DataBlocks, v.DataBlocks)
	}
	if got := readBack(t, name)["disk"].Content; got != string(content) {
		t.Errorf("%d bytes, not the %d of the file", len(got), size)
	}
	if out, err := getPeers(t).run(t, "bin/fsck.erofs", "--extract", name); err != nil {
		t.Errorf("fsck.erofs: %v: %s", err, out)
	}
}

// sparseTar has GNU tar pack a file with text in the midst of a hole.
func sparseTar(t *testing.T, size int64, text string) []byte {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(text), size/2); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := getPeers(t).command("bin/tar", "--create", "--sparse", "--format=pax", "--directory", dir, "disk")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tar: %v: %s", err, stderr.String())
	}
	return out
}
