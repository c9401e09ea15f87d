// Package debimage makes OCI images from locked Debian packages, where no
// container registry is at hand. The same lock file gives the same image, byte
// for byte: no maintainer script is run, owners and times come from the
// packages, and the layer is not compressed.
package debimage

import (
	"archive/tar"
	"context"
	"io"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/kraudcloud/kattest/reproducible/debian"
)

// Image makes an image of one layer for linux/amd64. Its time is that of the
// newest file, and its history names who made it.
func (t *Tree) Image(by string, config v1.Config) (v1.Image, error) {
	// Uncompressed: what a compressor writes depends on its version.
	data, err := t.encode()
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		static.NewLayer(data, types.OCIUncompressedLayer))
	if err != nil {
		return nil, err
	}
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS = "amd64", "linux"
	file.Created = v1.Time{Time: t.newest}
	file.History = []v1.History{{Created: file.Created, CreatedBy: by}}
	file.Config = config
	return mutate.ConfigFile(img, file)
}

// MergeUsr adds the links of a merged /usr.
func (t *Tree) MergeUsr() {
	for _, dir := range []string{"bin", "lib", "lib64", "sbin"} {
		t.Link(dir, "usr/"+dir)
	}
}

// Unpack reads packages, some at a time, into one tree. What is of no use to a
// server is left out; licences stay.
func Unpack(ctx context.Context, debs []string) (*Tree, error) {
	t := newTree()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, deb := range debs {
		group.Go(func() error {
			return debian.Walk(ctx, deb, func(hdr *tar.Header, r io.Reader) error {
				if !wanted(hdr) {
					return nil
				}
				return t.put(hdr, r)
			})
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	t.newest = t.newest.UTC().Truncate(time.Second)
	return t, nil
}

// unwanted folders are of no use to a server.
var unwanted = []string{
	"usr/share/bash-completion", "usr/share/bug", "usr/share/debconf", "usr/share/doc-base", "usr/share/info",
	"usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/share/perl5", "usr/share/pixmaps",
}

func wanted(hdr *tar.Header) bool {
	if strings.HasPrefix(hdr.Name, "usr/share/doc/") && hdr.Typeflag == tar.TypeReg {
		return strings.HasSuffix(hdr.Name, "/copyright")
	}
	for _, dir := range unwanted {
		if hdr.Name == dir || strings.HasPrefix(hdr.Name, dir+"/") {
			return false
		}
	}
	return true
}
