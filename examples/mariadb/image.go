package main

import (
	"context"
	_ "embed"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kraudcloud/kattest/examples/internal/debimage"
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
	t, err := debimage.Unpack(ctx, debs)
	if err != nil {
		return nil, err
	}
	t.Folder("docker-entrypoint-initdb.d", 0o755, 0)
	t.Folder("run/mysqld", 0o755, mysqlID)
	t.Folder("var/lib/mysql", 0o750, mysqlID)
	t.File("etc/group", 0o644, []byte(group))
	t.File("etc/passwd", 0o644, []byte(passwd))
	t.File("etc/mysql/mariadb.conf.d/50-image.cnf", 0o644, serverConfig)
	t.File("usr/local/bin/docker-entrypoint.sh", 0o755, entrypoint)
	// What the packages' scripts would have made.
	t.Link("etc/mysql/my.cnf", "mariadb.cnf")
	t.Link("usr/bin/awk", "mawk")
	t.MergeUsr()
	return t.Image("examples/mariadb", v1.Config{
		Entrypoint:   []string{"docker-entrypoint.sh"},
		Cmd:          []string{"mariadbd"},
		Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
		ExposedPorts: map[string]struct{}{"3306/tcp": {}},
		Volumes:      map[string]struct{}{"/var/lib/mysql": {}},
	})
}
