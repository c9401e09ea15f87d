package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mariadb": func() { os.Exit(cli.Main(newRoot(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

func TestScriptsOfCommand(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", UpdateScripts: os.Getenv("UPDATE") != ""})
}

// The image does not depend on the order in which packages are unpacked, nor on
// when and where it is made.
func TestImageIsTheSame(t *testing.T) {
	debs := locked(t)
	var digests []v1.Hash
	for range 2 {
		slices.Reverse(debs)
		img, err := newImage(t.Context(), debs)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("two images of the same packages: %v and %v", digests[0], digests[1])
	}
	if img, err := newImage(t.Context(), debs[1:]); err == nil {
		if digest, _ := img.Digest(); digest == digests[0] {
			t.Error("a package less, and the same digest")
		}
	}
}

func TestImage(t *testing.T) {
	img, err := newImage(t.Context(), locked(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img, validate.Fast); err != nil {
		t.Error(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"docker-entrypoint.sh", "mariadbd"}, append(config.Config.Entrypoint, config.Config.Cmd...)); diff != "" {
		t.Error(diff)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wanted := map[string]string{ // name to owner, group and mode
		"run/mysqld/":                        "999 999 755",
		"var/lib/mysql/":                     "999 999 750",
		"tmp/":                               "0 0 1777",
		"usr/sbin/mariadbd":                  "0 0 755",
		"usr/local/bin/docker-entrypoint.sh": "0 0 755",
		"usr/bin/su":                         "0 0 755", // setuid in its package
	}
	seen := map[string]bool{}
	for archive := tar.NewReader(r); ; {
		hdr, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if seen[hdr.Name] {
			t.Errorf("%s stands twice", hdr.Name)
		}
		seen[hdr.Name] = true
		if dir := filepath.Dir(strings.TrimSuffix(hdr.Name, "/")); dir != "." && !seen[dir+"/"] {
			t.Errorf("%s stands before its folder", hdr.Name)
		}
		if hdr.ModTime.After(config.Created.Time) {
			t.Errorf("%s is of %v, after the image", hdr.Name, hdr.ModTime)
		}
		if want, ok := wanted[hdr.Name]; ok {
			delete(wanted, hdr.Name)
			if got := fmt.Sprintf("%d %d %o", hdr.Uid, hdr.Gid, hdr.Mode); got != want {
				t.Errorf("%s: %s, want %s", hdr.Name, got, want)
			}
		}
		if strings.HasPrefix(hdr.Name, "usr/share/man/") {
			t.Errorf("%s is of no use to a server", hdr.Name)
		}
	}
	for name := range wanted {
		t.Errorf("%s is missing", name)
	}
	if !seen["usr/share/doc/mariadb-server-core/copyright"] {
		t.Error("the licence is missing")
	}
}
