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
	stack, lock, source, sign, bundle string
}

func (f *statementFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.stack, "stack", "", "boot stack, as kattest build writes it (required)")
	flags.StringVar(&f.lock, "lock", "", "lock file that it was built from (default reproducible/lock.json of the source)")
	flags.StringVar(&f.source, "source", "", "checkout of "+module+" (default the one around the working directory)")
	flags.StringVar(&f.sign, "sign", "", "key to sign with: PEM file, or NAME://KEY of a KMS; needs --bundle")
	flags.StringVar(&f.bundle, "bundle", "", "file to write the signed statement to")
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
	key, err := openReleaseSigner(cmd.Context(), f.sign)
	if err != nil {
		return err
	}
	signed, err := release.SignPredicate(predicateType, predicate, components, key)
	if err != nil {
		return signingError(err)
	}
	return wholefile.Write(f.bundle, signed, 0o644)
}
