package kattest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/sbom"
)

func newSBOM() *cobra.Command {
	var dir, lockFile, source, sign, bundle string
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
			if dir == "" || (sign == "") != (bundle == "") {
				return cli.Usage(errors.New("want --stack, and --sign with --bundle or neither"), "see 'kattest sbom --help'")
			}
			if lockFile == "" {
				checkout, err := findSource(source)
				if err != nil {
					return cli.Usage(err, "run this in a checkout of "+module+", or name the lock file with --lock")
				}
				lockFile = filepath.Join(checkout, "reproducible", "lock.json")
			}
			bom, components, err := billOf(dir, lockFile)
			if err != nil {
				return cli.Usage(err, "")
			}
			if sign == "" {
				_, err := cmd.OutOrStdout().Write(bom)
				return err
			}
			key, err := openReleaseSigner(cmd.Context(), sign)
			if err != nil {
				return err
			}
			b, err := release.SignPredicate(release.SBOMType, bom, components, key)
			if err != nil {
				return signingError(err)
			}
			return writeAtomic(bundle, b)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "stack", "", "boot stack, as kattest build writes it (required)")
	flags.StringVar(&lockFile, "lock", "", "lock file that it was built from (default reproducible/lock.json of the source)")
	flags.StringVar(&source, "source", "", "checkout of "+module+" (default the one around the working directory)")
	flags.StringVar(&sign, "sign", "", "key to sign with: PEM file, or NAME://KEY of a KMS; needs --bundle")
	flags.StringVar(&bundle, "bundle", "", "file to write the signed statement to")
	return cmd
}

// billOf reads a stack, compares its files with its manifest, and returns its bill
// of materials.
func billOf(dir, lockFile string) ([]byte, []release.Component, error) {
	s, err := stack.Load(dir)
	if err != nil {
		return nil, nil, err
	}
	l, err := lock.Load(lockFile)
	if err != nil {
		return nil, nil, err
	}
	agent, err := os.ReadFile(filepath.Join(dir, stack.Agent))
	if err != nil {
		return nil, nil, err
	}
	bom, err := sbom.New(s, l, agent)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	components, err := release.Components(s)
	return bom, components, err
}
