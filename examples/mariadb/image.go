package main

import (
	"archive/tar"
	"context"
	_ "embed"
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

//go:embed entrypoint.sh
var entrypoint []byte

//go:embed server.cnf
var serverConfig []byte

// mysqlID is the user and group of the server, the same as in the official
// image, so that volumes can be exchanged.
const mysqlID = 999

const passwd = `root:x:0:0:root:/root:/bin/bash
mysql:x:999:999:MariaDB:/var/lib/mysql:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`

const group = `root:x:0:
mysql:x:999:
nogroup:x:65534:
`

// newImage makes the image of these packages.
func newImage(ctx context.Context, debs []string) (v1.Image, error) {
	t, err := unpack(ctx, debs)
	if err != nil {
		return nil, err
	}
	t.folder("docker-entrypoint-initdb.d", 0o755, 0)
	t.folder("run/mysqld", 0o755, mysqlID)
	t.folder("var/lib/mysql", 0o750, mysqlID)
	t.file("etc/group", 0o644, []byte(group))
	t.file("etc/passwd", 0o644, []byte(passwd))
	t.file("etc/mysql/mariadb.conf.d/50-image.cnf", 0o644, serverConfig)
	t.file("usr/local/bin/docker-entrypoint.sh", 0o755, entrypoint)
	// What the packages' scripts would have made.
	t.link("etc/mysql/my.cnf", "mariadb.cnf")
	t.link("usr/bin/awk", "mawk")
	for _, dir := range []string{"bin", "lib", "lib64", "sbin"} {
		t.link(dir, "usr/"+dir)
	}
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
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = "amd64", "linux"
	config.Created = v1.Time{Time: t.newest}
	config.History = []v1.History{{Created: config.Created, CreatedBy: "examples/mariadb"}}
	config.Config = v1.Config{
		Entrypoint:   []string{"docker-entrypoint.sh"},
		Cmd:          []string{"mariadbd"},
		Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
		ExposedPorts: map[string]struct{}{"3306/tcp": {}},
		Volumes:      map[string]struct{}{"/var/lib/mysql": {}},
	}
	return mutate.ConfigFile(img, config)
}

// unpack reads packages, some at a time, into one tree.
func unpack(ctx context.Context, debs []string) (*tree, error) {
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

// unwanted folders are of no use to a server. Licences stay.
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
