package main

import (
	_ "embed"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/examples/internal/debimage"
)

//go:embed lock.json
var lockFile []byte

var recipe = debimage.Recipe{Name: "mariadb", Title: "MariaDB", Lock: lockFile, Image: newImage}

func newRoot() *cobra.Command {
	cmd := recipe.Command()
	cmd.AddCommand(newQuery())
	return cmd
}
