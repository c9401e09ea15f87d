package erofs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	reader "github.com/erofs/go-erofs"
)

func regular(text string) *Inode {
	return &Inode{Mode: 0o644, Mtime: time.Unix(1, 0), Content: Content{From: strings.NewReader(text), Size: int64(len(text))}}
}

func directory(entries ...Entry) *Inode {
	return &Inode{Mode: fs.ModeDir | 0o755, Mtime: time.Unix(0, 0), Entries: entries}
}

// write lays out and writes a tree.
func write(t *testing.T, root *Inode) ([]byte, error) {
	t.Helper()
	img, err := Plan(root)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	n, err := img.WriteTo(&b)
	if err == nil && (n != int64(b.Len()) || n != img.Blocks()*BlockSize) {
		t.Fatalf("%d bytes, said were %d, planned %d blocks", b.Len(), n, img.Blocks())
	}
	return b.Bytes(), err
}

func TestReadBack(t *testing.T) {
	both := regular("linked")
	data, err := write(t, directory(
		Entry{"a", both},
		Entry{"d", directory(Entry{"b", both}, Entry{"big", regular(strings.Repeat("0123456789", 1000))})},
	))
	if err != nil {
		t.Fatal(err)
	}
	img, err := reader.Open(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "linked", "d/b": "linked", "d/big": strings.Repeat("0123456789", 1000)} {
		if got, err := fs.ReadFile(img, name); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if both.nlink != 2 {
		t.Errorf("%d links, want 2", both.nlink)
	}
}

// Each length of names and contents around a block's ends reads back.
func TestBlockEnds(t *testing.T) {
	for n := 300; n < 360; n++ { // entries that fill about one block
		var entries []Entry
		for i := range n {
			entries = append(entries, Entry{fmt.Sprintf("%04d", i), regular(strings.Repeat("x", i*37))})
		}
		data, err := write(t, directory(entries...))
		if err != nil {
			t.Fatal(err)
		}
		img, err := reader.Open(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range entries {
			if got, err := fs.ReadFile(img, e.Name); err != nil || len(got) != i*37 {
				t.Fatalf("of %d files, %s: %d bytes, %v", n, e.Name, len(got), err)
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	twice := directory()
	with := func(change func(*Inode)) *Inode {
		ino := regular("x")
		change(ino)
		return directory(Entry{"f", ino})
	}
	for _, tt := range []struct {
		name string
		root *Inode
		err  string
	}{
		{"root", regular(""), "the root is not a directory"},
		{"directory with two names", directory(Entry{"a", twice}, Entry{"b", twice}), `"b": a directory with two names`},
		{"socket", with(func(i *Inode) { i.Mode = fs.ModeSocket }), "a file of mode"},
		{"attribute", with(func(i *Inode) { i.Xattrs = map[string]string{"system.other": ""} }), `extended attribute "system.other"`},
		{"attributes", with(func(i *Inode) {
			i.Xattrs = map[string]string{}
			for n := range 5 {
				i.Xattrs[fmt.Sprint("user.", n)] = strings.Repeat("x", 1<<16-1)
			}
		}), "extended attributes of"},
		{"size", with(func(i *Inode) { i.Content.Size = -1 }), "content of -1 bytes"},
		{"holes", with(func(i *Inode) { i.Content.Holes = make([]bool, 2) }), "content of 1 bytes with 2 chunks, want 1"},
		{"blocks", with(func(i *Inode) { i.Content.Size = 1 << 45 }), ErrTooBig.Error()},
		{"content that ends early", with(func(i *Inode) { i.Content.Size = 2 }), io.ErrUnexpectedEOF.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := write(t, tt.root); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}

// Holes are where they are said to be, and nothing is read of them.
func FuzzHoles(f *testing.F) {
	f.Add(int64(200_000), uint32(0b0101))
	f.Add(int64(65_536), uint32(1))
	f.Add(int64(1_000_001), uint32(0xffff))
	f.Fuzz(func(t *testing.T, size int64, mask uint32) {
		if size <= 0 || size > 32*minChunk {
			return
		}
		content := bytes.Repeat([]byte("x"), int(size))
		holes := make([]bool, (size+minChunk-1)/minChunk)
		want := bytes.Clone(content)
		for i := range holes {
			if holes[i] = mask>>i&1 == 1; holes[i] {
				clear(want[i*minChunk : min((i+1)*minChunk, int(size))])
			}
		}
		ino := &Inode{Mode: 0o600, Mtime: time.Unix(0, 0), Content: Content{From: bytes.NewReader(content), Size: size, Holes: holes}}
		data, err := write(t, directory(Entry{"f", ino}))
		if err != nil {
			t.Fatal(err)
		}
		img, err := reader.Open(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := fs.ReadFile(img, "f"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes other than those written, %v", len(got), err)
		}
	})
}
