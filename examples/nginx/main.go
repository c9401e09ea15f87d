// Command nginx makes an OCI image of nginx from locked Debian packages, where
// no container registry is at hand. It serves a page on port 80.
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

//go:embed nginx.conf
var config []byte

//go:embed index.html
var page []byte

func main() {
	recipe := debimage.Recipe{Name: "nginx", Title: "nginx", Lock: lockFile, Image: newImage}
	os.Exit(cli.Main(recipe.Command(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// wwwID is the user and group of the workers: Debian's www-data.
const wwwID = 33

func newImage(ctx context.Context, debs []string) (v1.Image, error) {
	t, err := debimage.Unpack(ctx, debs)
	if err != nil {
		return nil, err
	}
	t.MergeUsr()
	t.Accounts(debimage.Account{Name: "www-data", ID: wwwID, Home: "/srv/www"})
	t.File("etc/nginx/nginx.conf", 0o644, config)
	t.File("srv/www/index.html", 0o644, page)
	t.Folder("var/lib/nginx", 0o750, wwwID)
	t.Folder("run", 0o755, 0)
	return t.Image("examples/nginx", v1.Config{
		Entrypoint:   []string{"nginx"},
		Cmd:          []string{"-g", "daemon off;"},
		Env:          []string{"PATH=/usr/sbin:/usr/bin"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
		StopSignal:   "SIGQUIT",
	})
}
