// Package kattest is the command tree of kattest: build a boot stack, measure
// it, and verify what a guest answers.
package kattest

import "github.com/spf13/cobra"

// commands makes those of the root, by name: together, their flags take a
// twentieth of what a verification does.
var commands = map[string]func() *cobra.Command{
	"attest":     newAttest,
	"audit":      newAudit,
	"build":      newBuild,
	"collateral": newCollateral,
	"connect":    newConnect,
	"explain":    newExplain,
	"firmware":   newFirmware,
	"idblock":    newIDBlock,
	"inputs":     newInputs,
	"lock":       newLock,
	"log":        newLog,
	"measure":    newMeasure,
	"policy":     newPolicy,
	"profiles":   newProfiles,
	"provenance": newProvenance,
	"publish":    newPublish,
	"revoke":     newRevoke,
	"sbom":       newSBOM,
	"show":       newShow,
	"tpm":        newTPM,
	"unlock":     newUnlock,
	"verify":     newVerify,
}

// New returns the root command, with the one command that the first argument names,
// or else with all.
func New(args ...string) *cobra.Command {
	root := &cobra.Command{
		Use:   "kattest",
		Short: "Prove what runs inside an AMD SEV-SNP guest",
	}
	if len(args) > 0 && commands[args[0]] != nil {
		root.AddCommand(commands[args[0]]())
		return root
	}
	for _, command := range commands {
		root.AddCommand(command())
	}
	return root
}
