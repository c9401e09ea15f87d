// Command redis makes an OCI image of Redis from locked Debian packages, where
// no container registry is at hand. It keeps what
// it is told in memory, and in /data when told to.
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

func main() {
	recipe := debimage.Recipe{Name: "redis", Title: "Redis", Lock: lockFile, Image: newImage}
	os.Exit(cli.Main(recipe.Command(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// redisID is the user and group of the server, the same as in the official
// image, so that volumes can be exchanged.
const redisID = 999

func newImage(ctx context.Context, debs []string) (v1.Image, error) {
	t, err := debimage.Unpack(ctx, debs)
	if err != nil {
		return nil, err
	}
	t.MergeUsr()
	t.Accounts(debimage.Account{Name: "redis", ID: redisID, Home: "/data"})
	t.Folder("data", 0o750, redisID)
	return t.Image("examples/redis", v1.Config{
		// As the official image: who publishes the port decides who reaches it.
		Entrypoint:   []string{"redis-server", "--bind", "* -::*", "--protected-mode", "no"},
		Env:          []string{"PATH=/usr/bin"},
		ExposedPorts: map[string]struct{}{"6379/tcp": {}},
		User:         "redis",
		Volumes:      map[string]struct{}{"/data": {}},
		WorkingDir:   "/data",
	})
}
