// Command busybox makes an OCI image of BusyBox from locked Debian packages, where
// no container registry is at hand. It serves a page by
// its httpd, and has a shell.
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

//go:embed index.html
var page []byte

func main() {
	recipe := debimage.Recipe{Name: "busybox", Title: "BusyBox", Lock: lockFile, Image: newImage}
	os.Exit(cli.Main(recipe.Command(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// applets are the names by which the program is found; it knows more.
var applets = []string{"cat", "cp", "env", "grep", "httpd", "id", "ls", "mkdir", "mount", "ps", "sh", "sleep", "wget"}

func newImage(ctx context.Context, debs []string) (v1.Image, error) {
	t, err := debimage.Unpack(ctx, debs)
	if err != nil {
		return nil, err
	}
	for _, applet := range applets {
		t.HardLink("usr/bin/"+applet, "usr/bin/busybox")
	}
	t.MergeUsr()
	t.Accounts()
	t.File("srv/www/index.html", 0o644, page)
	return t.Image("examples/busybox", v1.Config{
		Cmd:          []string{"httpd", "-f", "-p", "80", "-h", "/srv/www"},
		Env:          []string{"PATH=/bin"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
	})
}
