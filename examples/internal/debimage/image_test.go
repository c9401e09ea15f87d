package debimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// sample is a tree of two packages' entries, put in either order.
func sample(t *testing.T, backwards bool) *Tree {
	t.Helper()
	entries := []struct {
		tar.Header
		data string
	}{
		{tar.Header{Typeflag: tar.TypeDir, Name: "usr", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "usr/a", Mode: 0o4755}, "a"},
		{tar.Header{Typeflag: tar.TypeDir, Name: "usr", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "usr/b", Mode: 0o644}, "b"},
	}
	tree := newTree()
	for i := range entries {
		e := entries[i]
		if backwards {
			e = entries[len(entries)-1-i]
		}
		if err := tree.put(&e.Header, strings.NewReader(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	tree.HardLink("sbin2", "usr/b")
	tree.Accounts(Account{Name: "app", ID: 7, Home: "/srv"})
	tree.MergeUsr()
	return tree
}

func TestImage(t *testing.T) {
	var digests []v1.Hash
	for _, backwards := range []bool{false, true} {
		img, err := sample(t, backwards).Image("a test", v1.Config{User: "app"})
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(img, validate.Fast); err != nil {
			t.Error(err)
		}
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("the digest depends on the order: %v and %v", digests[0], digests[1])
	}
}

func TestEncode(t *testing.T) {
	tree := sample(t, false)
	tree.Remove("usr/a")
	data, err := tree.encode()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name+" "+h.Linkname)
	}
	want := []string{"bin usr/bin", "etc/ ", "etc/group ", "etc/passwd ", "lib usr/lib", "lib64 usr/lib64", "sbin usr/sbin", "usr/ ", "usr/b ", "sbin2 usr/b"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSetuidIsDropped(t *testing.T) {
	if mode := sample(t, false).entries["usr/a"].hdr.Mode; mode != 0o755 {
		t.Errorf("mode %o", mode)
	}
}

func TestTwoPackagesWithOneFile(t *testing.T) {
	tree := sample(t, false)
	if err := tree.put(&tar.Header{Typeflag: tar.TypeReg, Name: "usr/a"}, strings.NewReader("")); err == nil {
		t.Error("a file in two packages is taken")
	}
}
