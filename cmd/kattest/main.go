// Command kattest is documented in docs/ and by its --help.
package main

import (
	"os"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/kattest"
)

func main() {
	os.Exit(cli.Main(kattest.New(os.Args[1:]...), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
