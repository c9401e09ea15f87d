// Command mariadb makes an OCI image of MariaDB from locked Debian packages,
// where no container registry is at hand, and asks a running database.
//
// The image behaves towards its user as the official one does; the entrypoint
// is described in README.md. The same lock file gives the same image, byte for
// byte. No maintainer script of a package is run.
package main

import (
	"os"

	"github.com/kraudcloud/kattest/internal/cli"
)

func main() { os.Exit(cli.Main(newRoot(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
