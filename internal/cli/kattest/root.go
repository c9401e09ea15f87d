// Package kattest is the command tree of kattest: build a boot stack, measure
// it, and verify what a guest answers.
package kattest

import "github.com/spf13/cobra"

// New returns the root command.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "kattest",
		Short: "Prove what runs inside an AMD SEV-SNP guest",
	}
	root.AddCommand(newBuild(), newAudit(), newLock(), newInputs(), newSBOM(), newProvenance(), newMeasure(), newPublish(), newFirmware(), newExplain(), newProfiles(), newIDBlock(), newRevoke(), newVerify(), newShow(), newCollateral(), newPolicy(), newTPM(), newAttest())
	return root
}
