// Command kattest-log is documented in docs/ and by its --help.
package main

import (
	"os"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/logs"
)

func main() { os.Exit(cli.Main(logs.New(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
