// Package cradle is the command tree of cradle-snp: run an unmodified container
// in a confidential VM.
package cradle

import "github.com/spf13/cobra"

// New returns the root command.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "cradle-snp",
		Short: "Run an unmodified container in an AMD SEV-SNP guest",
	}
	root.AddCommand(newSummon(), newRun(), newArgs(), newDoctor(),
		newPs(), newStop(), newKill(), newRm(), newLogs(), newInspect(), newUp(), newDown())
	return root
}
