// Package firmwares tries every x86 firmware that Debian has made of edk2: each
// is measured as the peers measure it, or refused for a reason.
package firmwares

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/fv"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// image is what is expected of one firmware image. The packages that hold it are
// in lock.json, by their SHA-256, with their suites as sets.
type image struct {
	Package string       `json:"package"`
	Version string       `json:"version"`
	Path    string       `json:"path"`
	SHA256  measure.Hash `json:"sha256"`
	// Problems are the codes of what is wrong with it; Refused says whether
	// that keeps it from being measured.
	Problems []measure.ProblemCode `json:"problems,omitempty"`
	Refused  bool                  `json:"refused,omitempty"`
	// Digests are the peers', by name and profile, of two vCPUs EPYC-v4 without
	// a kernel, and with the kernel, initrd and command line of the test.
	Digests map[string]measure.Digest `json:"digests,omitempty"`
	Kernel  map[string]measure.Digest `json:"kernel,omitempty"`
}

func load(t *testing.T) (lock.Lock, []image) {
	t.Helper()
	l, err := lock.Load("testdata/lock.json")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("testdata/images.json")
	if err != nil {
		t.Fatal(err)
	}
	var images []image
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&images); err != nil {
		t.Fatal(err)
	}
	return l, images
}

// get brings a package from the cache that kattest build uses, from the folders
// of KATTEST_INPUTS, or from this machine's mirrors.
func get(t *testing.T, in lock.Input) string {
	t.Helper()
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	f := &fetch.Fetcher{
		Cache:   filepath.Join(user, "kattest"),
		Folders: filepath.SplitList(os.Getenv("KATTEST_INPUTS")),
	}
	deb, err := f.Get(t.Context(), in)
	if _, gone := errors.AsType[*fetch.UnavailableError](err); gone {
		t.Skipf("Debian's mirrors keep the newest version alone, and KATTEST_INPUTS has no older one: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return deb
}

// unpack returns the package's images by their paths: all its .fd files, of
// which those called VARS are variable stores, and no firmware.
func unpack(t *testing.T, deb string) map[string][]byte {
	t.Helper()
	images := map[string][]byte{}
	err := debian.Walk(t.Context(), deb, func(hdr *tar.Header, r io.Reader) error {
		if hdr.Typeflag != tar.TypeReg || !strings.HasSuffix(hdr.Name, ".fd") {
			return nil
		}
		b, err := io.ReadAll(io.LimitReader(r, measure.MaxFirmware+1))
		images[hdr.Name] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return images
}

func TestDebiansFirmwares(t *testing.T) {
	l, expected := load(t)
	for _, in := range l.Inputs {
		t.Run(in.Name+"_"+in.Version, func(t *testing.T) {
			var want, got []image
			for _, i := range expected {
				if i.Package == in.Name && i.Version == in.Version {
					want = append(want, i)
				}
			}
			for path, content := range unpack(t, get(t, in)) {
				tried := try(t, content)
				tried.Package, tried.Version, tried.Path = in.Name, in.Version, path
				got = append(got, tried)
			}
			slices.SortFunc(got, func(a, b image) int { return cmp.Compare(a.Path, b.Path) })
			if d := diff.Diff(want, withPeers(t, want, got)); d != "" {
				t.Errorf("images, -expected +got:\n%s", d)
			}
		})
	}
}

// try measures an image in all profiles that peers know.
func try(t *testing.T, content []byte) image {
	t.Helper()
	i := image{SHA256: sha256.Sum256(content)}
	fw, err := measure.ParseFirmware(content)
	var problems []measure.Problem
	if refused, ok := errors.AsType[*measure.FirmwareError](err); ok {
		problems, i.Refused = refused.Problems, true
	} else if err != nil {
		t.Fatal(err)
	} else {
		problems = fw.Problems()
	}
	for _, p := range problems {
		i.Problems = append(i.Problems, p.Code)
	}
	if i.Refused {
		return i
	}
	hashes, err := measure.HashKernel(strings.NewReader("kernel of the test"), strings.NewReader("initrd of the test"), "console=ttyS0 quiet")
	if err != nil {
		t.Fatal(err)
	}
	i.Digests, i.Kernel = digests(fw, nil), digests(fw, &hashes)
	return i
}

// digests are ours, by profile.
func digests(fw *measure.Firmware, hashes *measure.KernelHashes) map[string]measure.Digest {
	all := map[string]measure.Digest{}
	for _, p := range measure.Profiles() {
		cpu, _ := measure.ParseCPU("EPYC-v4")
		d, err := measure.Measure(fw, hashes, measure.Shape{VMM: p, VCPUs: 2, CPU: cpu, GuestFeatures: measure.SNPActive})
		if err == nil {
			all[p.String()] = d
		}
	}
	return all
}

// withPeers puts our digest in the place of each peer's: what we cannot measure,
// or measure otherwise, makes a difference.
func withPeers(t *testing.T, want, got []image) []image {
	t.Helper()
	for n := range got {
		i := slices.IndexFunc(want, func(w image) bool { return w.Path == got[n].Path })
		if i < 0 {
			continue
		}
		got[n].Digests = rename(want[i].Digests, got[n].Digests)
		got[n].Kernel = rename(want[i].Kernel, got[n].Kernel)
		if !got[n].Refused && len(want[i].Digests) < 2 {
			t.Errorf("%s: digests of %d peers, want two at least", got[n].Path, len(want[i].Digests))
		}
	}
	return got
}

func rename(peers, ours map[string]measure.Digest) map[string]measure.Digest {
	var named map[string]measure.Digest
	for name := range peers {
		_, profile, _ := strings.Cut(name, " ")
		if named == nil {
			named = map[string]measure.Digest{}
		}
		if d, ok := ours[profile]; ok {
			named[name] = d
		}
	}
	return named
}

// TestTakenApart takes every image apart: package fv knows what edk2 makes.
func TestTakenApart(t *testing.T) {
	l, _ := load(t)
	for _, in := range l.Inputs {
		t.Run(in.Name+"_"+in.Version, func(t *testing.T) {
			for path, content := range unpack(t, get(t, in)) {
				parts, err := fv.Open(content)
				if err != nil {
					t.Errorf("%s: %v", path, err)
					continue
				}
				var outermost []byte
				for _, p := range parts {
					if !strings.Contains(p.Path, "/") {
						outermost = append(outermost, p.Data...)
					}
				}
				if !bytes.Equal(outermost, content) {
					t.Errorf("%s: %d bytes came of %d", path, len(outermost), len(content))
				}
			}
		})
	}
}
