package kattest

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/reproducible/provenance"
)

func newProvenance() *cobra.Command {
	var f statementFlags
	var build provenance.Build
	cmd := &cobra.Command{
		Use:   "provenance --stack DIR",
		Short: "Write how a boot stack was built, as SLSA provenance",
		Long: `Write SLSA provenance, version 1, of the boot stack in DIR: who built it, from which
revision of the source, with everything that the lock file names and the agent's Go
modules as resolved dependencies. Of builder and source it says what the flags say:
who signs it vouches for that.

--sign signs it as an in-toto statement about the stack's files, and writes the bundle.`,
		Example: `  kattest provenance --stack stack --builder https://ci.example/runner@v1 \
      --repository git+https://git.example/kattest --commit "$(git rev-parse HEAD)" \
      --sign release.key --bundle provenance.sigstore.json`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := f.read(cmd)
			if err != nil {
				return err
			}
			p, err := provenance.New(b.stack, b.lock, b.agent, build)
			if err != nil {
				return cli.Usage(fmt.Errorf("%s: %w", f.stack, err), "")
			}
			return f.write(cmd, b, provenance.PredicateType, p)
		},
	}
	f.register(cmd.Flags())
	flags := cmd.Flags()
	flags.StringVar(&build.Builder, "builder", "", "URI of what built, by which it is trusted (required)")
	flags.StringVar(&build.Repository, "repository", "", "URI of the source (required)")
	flags.StringVar(&build.Commit, "commit", "", "the source's git commit (required)")
	flags.StringVar(&build.Invocation, "invocation", "", "URI of the build's run")
	return cmd
}
