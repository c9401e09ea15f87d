package kattest

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/reproducible/sbom"
)

func newSBOM() *cobra.Command {
	var f statementFlags
	cmd := &cobra.Command{
		Use:   "sbom --stack DIR",
		Short: "Write the bill of materials of a boot stack",
		Long: `Write what the boot stack in DIR was made from, in CycloneDX: its files, what the lock
file names, and the agent's Go modules. What runs in the guest has the scope required,
tools have excluded. The same stack gives the same bytes.

--sign signs it as an in-toto statement about the stack's files, and writes the bundle.`,
		Example: `  kattest sbom --stack stack >sbom.json
  kattest sbom --stack stack --sign release.key --bundle sbom.sigstore.json`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := f.read(cmd)
			if err != nil {
				return err
			}
			bom, err := sbom.New(b.stack, b.lock, b.agent)
			if err != nil {
				return cli.Usage(fmt.Errorf("%s: %w", f.stack, err), "")
			}
			return f.write(cmd, b, release.SBOMType, bom)
		},
	}
	f.register(cmd.Flags())
	return cmd
}
