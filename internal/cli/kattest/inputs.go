package kattest

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/reproducible"
)

func newInputs() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inputs",
		Short: "Keep what a boot stack is built from",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return cli.Usage(errors.New("which command: export"), "see 'kattest inputs --help'")
		},
	}
	cmd.AddCommand(newInputsExport())
	return cmd
}

func newInputsExport() *cobra.Command {
	f := buildFlags{out: os.DevNull, output: "text"} // options that export does not have
	cmd := &cobra.Command{
		Use:   "export FILE",
		Short: "Pack every locked input in one archive",
		Long: `Pack what the lock file names and the agent's Go modules in FILE, a tar archive, the
same for everyone. 'kattest build --inputs FILE' builds from it without a network:
Debian's mirrors drop what they have superseded, so that a lock file alone does not
last. What is missing in the cache is looked for as by build.

FILE is written whole or not at all.`,
		Example: `  kattest inputs export inputs.tar
  kattest build --out stack --inputs inputs.tar`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := f.options(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			var exported error
			err = wholefile.Fill(args[0], 0o644, func(w io.Writer) error {
				exported = reproducible.Export(cmd.Context(), options, w)
				return exported
			})
			if exported != nil {
				return buildError(exported)
			}
			if err != nil {
				return cli.Usage(err, "")
			}
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes\n", args[0], info.Size())
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.inputs, "inputs", nil, "folder or archive to look for inputs in; may be given several times")
	flags.StringVar(&f.cache, "cache", "", "cache of inputs (default kattest in the user's cache folder)")
	flags.StringVar(&f.lock, "lock", "", "lock file (default reproducible/lock.json of the source)")
	flags.StringVar(&f.source, "source", "", "checkout of "+module+" (default the one around the working directory)")
	return cmd
}
