package kattest

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// statementFlags are those of a statement about a boot stack beside its release.
type statementFlags struct {
	signFlags
	stack, lock, source, trustedRoot string
}

func (f *statementFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.stack, "stack", "", "boot stack, as kattest build writes it (required)")
	flags.StringVar(&f.lock, "lock", "", "lock file that it was built from (default reproducible/lock.json of the source)")
	flags.StringVar(&f.source, "source", "", "checkout of "+module+" (default the one around the working directory)")
	f.signFlags.register(flags, "key to sign with, with --bundle")
	registerTrustedRoot(flags, &f.trustedRoot)
}

// built is a boot stack whose files are those of its manifest.
type built struct {
	stack stack.Stack
	lock  lock.Lock
	agent []byte
}

func (f *statementFlags) read(cmd *cobra.Command) (built, error) {
	if f.stack == "" || (f.sign == "") != (f.bundle == "") {
		return built{}, cli.Usage(errors.New("want --stack, and --sign with --bundle or neither"), "see '"+cmd.CommandPath()+" --help'")
	}
	if err := f.checkKeyless(f.trustedRoot); err != nil {
		return built{}, cli.Usage(err, "see '"+cmd.CommandPath()+" --help'")
	}
	if f.lock == "" {
		checkout, err := findSource(f.source)
		if err != nil {
			return built{}, cli.Usage(err, "run this in a checkout of "+module+", or name the lock file with --lock")
		}
		f.lock = filepath.Join(checkout, "reproducible", "lock.json")
	}
	var b built
	var err error
	if b.stack, err = stack.Load(f.stack); err != nil {
		return built{}, cli.Usage(err, "")
	}
	if b.lock, err = lock.Load(f.lock); err != nil {
		return built{}, cli.Usage(err, "")
	}
	if b.agent, err = os.ReadFile(filepath.Join(f.stack, stack.Agent)); err != nil {
		return built{}, cli.Usage(err, "")
	}
	return b, nil
}

// write writes a predicate to standard output, or signs it as a statement about
// the stack's files.
func (f *statementFlags) write(cmd *cobra.Command, b built, predicateType string, predicate []byte) error {
	if f.sign == "" {
		_, err := cmd.OutOrStdout().Write(predicate)
		return err
	}
	components, err := release.Components(b.stack)
	if err != nil {
		return err
	}
	statement, err := release.PredicateStatement(predicateType, predicate, components)
	if err != nil {
		return err
	}
	sign, err := f.open(cmd.Context(), f.trustedRoot)
	if err != nil {
		return err
	}
	bundle, err := sign(cmd.Context(), statement)
	if err != nil {
		return err
	}
	return wholefile.Write(f.bundle, bundle, 0o644)
}
