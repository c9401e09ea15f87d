package cradle

import "github.com/spf13/cobra"

func newArgs() *cobra.Command { return &cobra.Command{Use: "args"} }
