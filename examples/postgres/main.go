// Command postgres makes an OCI image of PostgreSQL from locked Debian packages, where
// no container registry is at hand.
package main

import (
	"context"
	_ "embed"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kraudcloud/kattest/examples/internal/debimage"
	"github.com/kraudcloud/kattest/internal/cli"
)

//go:embed lock.json
var lockFile []byte

//go:embed entrypoint.sh
var entrypoint []byte

func main() {
	recipe := debimage.Recipe{Name: "postgres", Title: "PostgreSQL", Lock: lockFile, Image: newImage}
	os.Exit(cli.Main(recipe.Command(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// postgresID is the user and group of the server, the same as in the official
// image, so that volumes can be exchanged.
const postgresID = 999

func newImage(ctx context.Context, debs []string) (v1.Image, error) {
	t, err := debimage.Unpack(ctx, debs)
	if err != nil {
		return nil, err
	}
	t.Remove("usr/lib/postgresql/15/lib/bitcode", "usr/lib/postgresql/15/lib/llvmjit.so") // without LLVM
	t.MergeUsr()
	t.Accounts(debimage.Account{Name: "postgres", ID: postgresID, Home: "/var/lib/postgresql"})
	t.Link("usr/bin/sh", "dash")
	t.Link("var/run", "../run")
	t.Folder("run/postgresql", 0o2775, postgresID)
	t.Folder("var/lib/postgresql/data", 0o700, postgresID)
	t.File("usr/local/bin/docker-entrypoint.sh", 0o755, entrypoint)
	return t.Image("examples/postgres", v1.Config{
		Entrypoint:   []string{"docker-entrypoint.sh"},
		Cmd:          []string{"postgres"},
		Env:          []string{"PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin", "LANG=C.UTF-8", "PGDATA=/var/lib/postgresql/data"},
		ExposedPorts: map[string]struct{}{"5432/tcp": {}},
		StopSignal:   "SIGINT",
		User:         "postgres",
		Volumes:      map[string]struct{}{"/var/lib/postgresql/data": {}},
	})
}
