package cradle

import "github.com/spf13/cobra"

func newSummon() *cobra.Command { return &cobra.Command{Use: "summon"} }
