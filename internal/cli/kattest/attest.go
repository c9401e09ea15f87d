package kattest

import "github.com/spf13/cobra"

func newAttest() *cobra.Command { return &cobra.Command{Use: "attest"} }
