package kattest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/mod/modfile"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/sandbox"
)

// buildFlags are the flags of kattest build.
type buildFlags struct {
	out, cache, lock, source, output string
	inputs                           []string
	jobs                             int
	twice                            bool
}

func newBuild() *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:   "build --out DIR",
		Short: "Build the boot stack from the locked sources",
		Long: `Build firmware, kernel and initrd with the guest agent, and stack.json, which
names them. Everything comes from the lock file: looked for in the cache, then in
the folders and archives of --inputs, then at this machine's own mirrors, and checked by its
SHA-256. Firmware and kernel are compiled in roots made of locked packages alone, without
a network; bubblewrap must be installed.

What was built is kept in the cache by the digest of all that went into it. The
first build takes minutes, most of them the kernel's.

--twice makes every file a second time where all that it may not depend on is
another: folder, umask, number of jobs, user, host name, time zone, locale, date,
number of processors, and the order in which directories are listed. Files that
differ are named, nothing is written, and the exit code is 5. The cache keeps the
second ones too; what takes seconds is made again each time.`,
		Example: `  kattest build --out stack
  kattest build --out stack --inputs /mnt/inputs --jobs 8
  kattest build --out stack --twice`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.out, "out", "", "folder to write: absent, empty or a boot stack, which is replaced (required)")
	f.registerInputs(flags)
	flags.BoolVar(&f.twice, "twice", false, "build a second time, elsewhere, and compare")
	flags.StringVar(&f.output, "output", "text", "text, or json: stack.json itself")
	return cmd
}

// registerInputs registers what a build is made from.
func (f *buildFlags) registerInputs(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.inputs, "inputs", nil, "folder or archive to look for inputs in; may be given several times")
	flags.StringVar(&f.cache, "cache", "", "cache of inputs and artefacts (default kattest in the user's cache folder)")
	flags.StringVar(&f.lock, "lock", "", "lock file (default reproducible/lock.json of the source)")
	flags.StringVar(&f.source, "source", "", "checkout of "+module+" (default the one around the working directory)")
	flags.IntVar(&f.jobs, "jobs", 0, "compilers to run at a time (default one for each processor)")
}

// module is the Go module whose checkout is built from.
const module = "github.com/kraudcloud/kattest"

func (f buildFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return cli.Usage(fmt.Errorf("--output: %q is neither text nor json", f.output), "")
	}
	options, err := f.options(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	build := reproducible.Build
	if f.twice {
		build = reproducible.BuildTwice
	}
	s, err := build(cmd.Context(), options)
	if err != nil {
		return buildError(err)
	}
	if f.twice {
		fmt.Fprintln(cmd.ErrOrStderr(), "build: the same bytes twice, the second time with another "+reproducible.Varied())
	}
	if f.output == "json" {
		data, err := s.Encode()
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(data)
		return err
	}
	return printStack(cmd.OutOrStdout(), s)
}

func (f buildFlags) options(log io.Writer) (reproducible.Options, error) {
	if f.out == "" {
		return reproducible.Options{}, cli.Usage(errors.New("--out is missing"), "name a folder for the boot stack: --out DIR")
	}
	if f.jobs < 0 {
		return reproducible.Options{}, cli.Usage(fmt.Errorf("--jobs: %d is negative", f.jobs), "")
	}
	source, err := findSource(f.source)
	if err != nil {
		return reproducible.Options{}, cli.Usage(err, "run this in a checkout of "+module+", or name one with --source DIR")
	}
	if f.cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return reproducible.Options{}, cli.Usage(err, "name a folder with --cache DIR")
		}
		f.cache = filepath.Join(user, "kattest")
	}
	return reproducible.Options{
		Source: source, Lock: f.lock, Out: f.out, Cache: f.cache, Folders: f.inputs, Jobs: f.jobs, Log: log,
	}, nil
}

// buildError gives an error its exit code and a hint.
func buildError(err error) error {
	if missing, ok := errors.AsType[*fetch.UnavailableError](err); ok {
		return &cli.Error{Code: cli.ExitUnavailable, Err: err, Hint: missing.Hint()}
	}
	if _, ok := errors.AsType[*reproducible.DifferError](err); ok {
		return &cli.Error{Code: cli.ExitMismatch, Err: err, Hint: "diffoscope, where it is installed, shows what differs"}
	}
	if errors.Is(err, sandbox.ErrMissing) {
		return &cli.Error{Code: cli.ExitInternal, Err: err, Hint: "as root: apt install bubblewrap"}
	}
	if errors.Is(err, reproducible.ErrUsage) {
		return cli.Usage(err, "")
	}
	return err
}

// findSource returns the checkout that dir is, or where dir is empty the one
// that the working directory stands in.
func findSource(dir string) (string, error) {
	if dir != "" {
		return dir, checkout(dir)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for above := dir; ; above = filepath.Dir(above) {
		if checkout(above) == nil {
			return above, nil
		}
		if above == filepath.Dir(above) {
			return "", fmt.Errorf("%s is not in a checkout of %s", dir, module)
		}
	}
}

func checkout(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return fmt.Errorf("%s is not a checkout of %s: %w", dir, module, err)
	}
	if got := modfile.ModulePath(data); got != module {
		return fmt.Errorf("%s is not a checkout of %s: its go.mod is that of %q", dir, module, got)
	}
	return nil
}

func printStack(w io.Writer, s stack.Stack) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FILE\tBYTES\tSHA-256")
	for _, f := range s.Files {
		fmt.Fprintf(table, "%s\t%d\t%s\n", f.Name, f.Size, f.SHA256)
	}
	fmt.Fprintf(table, "\ncommand line\t%s\nlock\t%s\n", s.Cmdline, s.Lock)
	return table.Flush()
}
