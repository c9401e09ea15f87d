package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// entry is a tar entry with its content.
type entry struct {
	tar.Header
	content string
}

var built = time.Unix(1700000000, 123456000)

func file(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: built}, content}
}

func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: built}, ""}
}

func symlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: built}, ""}
}

func hardlink(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.content))
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// makeImage makes an image whose layers hold these entries.
func makeImage(t testing.TB, config v1.Config, layers ...[]entry) v1.Image {
	t.Helper()
	tars := make([][]byte, len(layers))
	for i, entries := range layers {
		tars[i] = tarOf(t, entries...)
	}
	img, err := mutate.Config(imageOfTars(t, tars...), config)
	if err != nil {
		t.Fatal(err)
	}
	return setPlatform(t, img, "linux", "amd64")
}

// imageOfTars makes an image of these layers.
func imageOfTars(t testing.TB, layers ...[]byte) v1.Image {
	t.Helper()
	img := empty.Image
	for _, data := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	return setPlatform(t, img, "linux", "amd64")
}

func setPlatform(t testing.TB, img v1.Image, os, arch string) v1.Image {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = os, arch
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

var sampleConfig = v1.Config{Cmd: []string{"/bin/hello"}, Env: []string{"A=1"}}

// sample is a small image of two layers, with a bit of everything.
func sample(t testing.TB) v1.Image {
	t.Helper()
	return makeImage(t, sampleConfig,
		[]entry{
			dir("./"), dir("bin"), dir("etc"),
			file("bin/hello", strings.Repeat("hello\n", 2000)),
			file("etc/gone", "lower"), file("etc/kept", "kept\n"),
			symlink("sbin", "bin"),
		},
		[]entry{
			file("etc/.wh.gone", ""),
			file("sbin/second", "through a link"),
			hardlink("bin/again", "bin/hello"),
		})
}

func writeLayout(t testing.TB, img v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{refName: "v1"})); err != nil {
		t.Fatal(err)
	}
	return dir
}

func convert(t testing.TB, reference string) (pod.Verity, string) {
	t.Helper()
	img, err := Open(context.Background(), reference)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Create(filepath.Join(t.TempDir(), "root.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	v, err := img.Convert(context.Background(), root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := root.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if want := vm.RootSize(v.DataBlocks); info.Size() != want {
		t.Errorf("root.img has %d bytes, want %d", info.Size(), want)
	}
	return v, root.Name()
}

func testRegistry(t testing.TB) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func push(t testing.TB, img remote.Taggable, reference string) {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	switch img := img.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, img)
	case v1.Image:
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The same image gives the same root hash from wherever it comes, in another
// folder, under another umask and time zone.
func TestSourcesAgree(t *testing.T) {
	img := sample(t)
	dir := writeLayout(t, img)
	want, wantFile := convert(t, dir)

	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	host := testRegistry(t)
	push(t, img, host+"/hello:v1")
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: setPlatform(t, img, "linux", "arm64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	push(t, index, host+"/hello:multi")

	archive := filepath.Join(t.TempDir(), "hello.tar")
	tag, err := name.NewTag("hello:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(archive, tag, img); err != nil {
		t.Fatal(err)
	}
	tarred := filepath.Join(t.TempDir(), "layout.tar")
	tarFolder(t, dir, tarred)

	defer syscall.Umask(syscall.Umask(0o077))
	t.Setenv("TZ", "Asia/Kathmandu")
	for _, reference := range []string{
		dir, dir + ":v1", dir + "@" + digest.String(),
		archive, archive + ":v1", plainArchive(t, img), tarred, tarred + ":v1",
		host + "/hello:v1", host + "/hello:multi", host + "/hello@" + digest.String(),
	} {
		got, gotFile := convert(t, reference)
		if got != want {
			t.Errorf("%s: %+v, want %+v", reference, got, want)
		}
		a, err := os.ReadFile(wantFile)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(gotFile)
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: other bytes, %v", reference, err)
		}
	}
}

func tarFolder(t testing.TB, dir, to string) {
	t.Helper()
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// plainArchive writes a docker-archive with unpacked layers and a linked one,
// as docker saved it before version 25.
func plainArchive(t testing.TB, img v1.Image) string {
	t.Helper()
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	var entries []entry
	for i, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(rc)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, file(fmt.Sprintf("real%d/layer.tar", i), string(data)), symlink(fmt.Sprintf("%d/layer.tar", i), fmt.Sprintf("../real%d/layer.tar", i)))
		names = append(names, fmt.Sprintf("%q", fmt.Sprintf("%d/layer.tar", i)))
	}
	entries = append(entries, file("config.json", string(config)),
		file("manifest.json", fmt.Sprintf(`[{"Config":"config.json","RepoTags":["hello:v1"],"Layers":[%s]}]`, strings.Join(names, ","))))
	archive := filepath.Join(t.TempDir(), "plain.tar")
	if err := os.WriteFile(archive, tarOf(t, entries...), 0o600); err != nil {
		t.Fatal(err)
	}
	return archive
}

func TestReferenceHoldsNoPath(t *testing.T) {
	img := sample(t)
	host := testRegistry(t)
	push(t, img, host+"/hello:v1")
	for reference, want := range map[string]string{
		writeLayout(t, img):  "v1",
		plainArchive(t, img): "hello:v1",
		host + "/hello:v1":   host + "/hello:v1",
	} {
		got, err := Open(context.Background(), reference)
		if err != nil {
			t.Fatal(err)
		}
		if got.Reference != want {
			t.Errorf("%s: reference %q, want %q", reference, got.Reference, want)
		}
	}
}
