package kattest

import "github.com/spf13/cobra"

func newMeasure() *cobra.Command { return &cobra.Command{Use: "measure"} }
