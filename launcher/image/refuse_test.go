package image

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// tryConvert opens and converts and returns the first error.
func tryConvert(t *testing.T, reference string) error {
	t.Helper()
	img, err := Open(context.Background(), reference)
	if err != nil {
		if img != nil {
			t.Errorf("error %v with a value", err)
		}
		return err
	}
	root, err := os.Create(filepath.Join(t.TempDir(), "root.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	v, err := img.Convert(context.Background(), root, Options{})
	if err != nil && v.DataBlocks != 0 {
		t.Errorf("error %v with a value", err)
	}
	return err
}

// A flipped byte in any blob of a layout is refused, and the blob is named.
func TestTamperedBlob(t *testing.T) {
	img := sample(t)
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for name, digest := range map[string]v1.Hash{
		"manifest": manifest, "configuration": m.Config.Digest, "layer 1": m.Layers[0].Digest, "layer 2": m.Layers[1].Digest,
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeLayout(t, img)
			blob := filepath.Join(dir, "blobs", "sha256", digest.Hex)
			data, err := os.ReadFile(blob)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []int{0, len(data) / 2, len(data) - 1} {
				changed := bytes.Clone(data)
				changed[at] ^= 1
				overwrite(t, blob, changed)
				if err := tryConvert(t, dir); err == nil || !strings.Contains(err.Error(), digest.String()) || !strings.Contains(err.Error(), "hash to") {
					t.Errorf("byte %d: %v, want an error that names %s", at, err, digest)
				}
			}
			for _, changed := range [][]byte{data[:len(data)-1], append(bytes.Clone(data), 0)} {
				overwrite(t, blob, changed)
				if err := tryConvert(t, dir); err == nil || !strings.Contains(err.Error(), digest.String()) {
					t.Errorf("%d bytes of %d: %v, want an error that names %s", len(changed), len(data), err, digest)
				}
			}
		})
	}
}

func overwrite(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedImages(t *testing.T) {
	img := sample(t)
	other := makeImage(t, sampleConfig, []entry{file("other", "1")})
	otherConfig, err := other.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	wrongDiffID, err := mutate.ConfigFile(makeImage(t, sampleConfig, []entry{file("a", "1")}), otherConfig)
	if err != nil {
		t.Fatal(err)
	}
	missingDiffID, err := mutate.ConfigFile(img, otherConfig)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := mutate.AppendLayers(img, static.NewLayer([]byte("x"), types.DockerForeignLayer))
	if err != nil {
		t.Fatal(err)
	}
	notTar := makeImage(t, sampleConfig, nil)
	if notTar, err = mutate.AppendLayers(notTar, static.NewLayer(bytes.Repeat([]byte("x"), 1024), types.OCIUncompressedLayer)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		img  v1.Image
		err  string
	}{
		{"Windows", setPlatform(t, img, "windows", "amd64"), "the image is for windows/amd64, want linux/amd64"},
		{"other processor", setPlatform(t, img, "linux", "arm64"), "the image is for linux/arm64"},
		{"no platform", setPlatform(t, img, "", ""), "the image is for (none)/(none)"},
		{"not a container image", mutate.ConfigMediaType(img, "application/vnd.cncf.helm.config.v1+json"), `config.mediaType: "application/vnd.cncf.helm.config.v1+json" is not a container image's`},
		{"foreign layer", foreign, `layers[2].mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" is not supported`},
		{"other content than the configuration says", wrongDiffID, "unpacked it hashes to"},
		{"layers without a diff ID", missingDiffID, "rootfs.diff_ids: 1 entries for 2 layers"},
		{"not a tar", notTar, "tar entry 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tryConvert(t, writeLayout(t, tt.img)); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestChoice(t *testing.T) {
	dir := writeLayout(t, sample(t))
	p, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(makeImage(t, sampleConfig, []entry{file("a", "1")}), layout.WithAnnotations(map[string]string{refName: "v2"})); err != nil {
		t.Fatal(err)
	}
	if err := p.AppendIndex(mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: sample(t), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "riscv64"}},
	}), layout.WithAnnotations(map[string]string{refName: "riscv"})); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(t.TempDir(), "garbage.tar")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty.tar")
	if err := os.WriteFile(empty, tarOf(t, file("readme", "x")), 0o600); err != nil {
		t.Fatal(err)
	}
	for reference, want := range map[string]string{
		dir:                                "3 images, choose one by :TAG or @DIGEST of: v1@sha256:",
		dir + ":v3":                        `no image "v3", there is: v1@sha256:`,
		dir + ":v2":                        "",
		dir + ":riscv":                     "no image for linux/amd64, there is: linux/riscv64",
		t.TempDir():                        "neither index.json nor manifest.json",
		"./absent":                         "no such file or directory",
		garbage:                            "not an uncompressed tar file",
		empty:                              "neither index.json nor manifest.json",
		plainArchive(t, sample(t)) + ":v9": `no image "v9", there is: hello:v1`,
		"Not A Reference":                  "could not parse reference",
	} {
		err := tryConvert(t, reference)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got error %v, want %q", reference, err, want)
		}
	}
}

func TestRegistryErrors(t *testing.T) {
	host := testRegistry(t)
	err := tryConvert(t, host+"/absent:v1")
	if err == nil || !strings.Contains(err.Error(), "NAME_UNKNOWN") || errors.Is(err, ErrUnavailable) {
		t.Errorf("absent image: %v, want NAME_UNKNOWN, and not to be tried again", err)
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	if err := tryConvert(t, strings.TrimPrefix(closed.URL, "http://")+"/hello"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no registry: %v, want %v", err, ErrUnavailable)
	}
}

// Plain HTTP goes to this machine only.
func TestPlainHTTP(t *testing.T) {
	for target, refused := range map[string]bool{
		"http://127.0.0.1:5000/v2/": false, "http://[::1]:5000/v2/": false, "http://localhost:5000/v2/": false,
		"https://registry.example/v2/": false, "http://192.168.1.1:5000/v2/": true, "http://10.0.0.1/v2/": true, "http://registry.example/v2/": true,
	} {
		r, err := http.NewRequest(http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = secureTransport{fakeTransport{}}.RoundTrip(r)
		if got := err != nil && strings.Contains(err.Error(), "refusing plain HTTP"); got != refused {
			t.Errorf("%s: %v, want refused %v", target, err, refused)
		}
	}
}

type fakeTransport struct{}

func (fakeTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("reached")
}
