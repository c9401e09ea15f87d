// Command static makes an OCI image of a static Go program from locked Debian packages, where
// no container registry is at hand. The
// program is built by the Go that builds this command; it answers over HTTP with
// the time in a zone, which it knows from a package.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kraudcloud/kattest/examples/internal/debimage"
	"github.com/kraudcloud/kattest/internal/cli"
)

//go:embed lock.json
var lockFile []byte

func main() {
	recipe := debimage.Recipe{Name: "static", Title: "a static Go program", Lock: lockFile, Image: newImage}
	os.Exit(cli.Main(recipe.Command(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// program is what the image runs.
const program = "github.com/kraudcloud/kattest/examples/static/clock"

func newImage(ctx context.Context, debs []string) (v1.Image, error) {
	t, err := debimage.Unpack(ctx, debs)
	if err != nil {
		return nil, err
	}
	binary, err := build(ctx)
	if err != nil {
		return nil, err
	}
	t.Accounts(debimage.Account{Name: "clock", ID: 65532, Home: "/"})
	t.File("clock", 0o755, binary)
	return t.Image("examples/static", v1.Config{
		Entrypoint:   []string{"/clock"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		User:         "clock",
	})
}

// build makes the program, which depends on nothing of this machine.
func build(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "clock-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "clock")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=")
	if said, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building %s: %w: %s", program, err, said)
	}
	return os.ReadFile(out)
}
