// Command kattest-keyless is documented in docs/ and by its --help.
package main

import (
	"os"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/keyless"
)

func main() { os.Exit(cli.Main(keyless.New(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
