package kattest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/explain"
)

// explainFlags are the flags of kattest explain.
type explainFlags struct {
	shapeFlags
	measurement string
	stacks      []string
	releases    []string
	trust       trustFlags
	cmdlines    []string
	maxVCPUs    int
	allFeatures bool
	timeout     time.Duration
	output      string
}

func newExplain() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say which launch made a digest",
		Long: `Say which launch made a digest that is not the one expected, and what to change,
or how many launches were ruled out. Searched are all combinations of: each
firmware given; kernel hashes off, or on with each kernel, each initrd or none,
each command line or none; each VMM; the signatures of all of QEMU's CPU models,
of AMD's server processors and of this machine; SEV_FEATURES with up to two
features on, or any with --all-features; 1 to --max-vcpus vCPUs.

--vcpus, --cpu, --guest-features and --vmm say what was expected of a --stack; a
release says so itself. They are searched too.

Exit status: 0 the launch was found, 2 usage or bad input, 3 a release is not
signed by its key, 5 no launch of those searched makes the digest, or --timeout
ended the search (the answer says which).`,
		Example: `  kattest explain --measurement HEX --release release.json --key release.pub
  kattest explain --measurement HEX --stack DIR --cmdline 'console=ttyS0 debug' --vcpus 4`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.measurement, "measurement", "", "the digest, 96 hexadecimal digits")
	flags.StringArrayVar(&f.stacks, "stack", nil, "folder of a boot stack; may be given more than once")
	flags.StringArrayVar(&f.releases, "release", nil, "release bundle; may be given more than once")
	f.trust.register(flags)
	flags.StringArrayVar(&f.cmdlines, "cmdline", nil, "further command line to try; may be given more than once")
	f.register(flags)
	flags.IntVar(&f.maxVCPUs, "max-vcpus", measure.MaxVCPUs, "largest number of vCPUs to try")
	flags.BoolVar(&f.allFeatures, "all-features", false, "try every mask of SEV_FEATURES: 271 times as many launches")
	flags.DurationVar(&f.timeout, "timeout", 0, "end the search after so long, such as 30s (default never)")
	flags.StringVar(&f.output, "output", "text", "form of the answer: text or json")
	return cmd
}

// check refuses flags that contradict each other.
func (f *explainFlags) check(flags *pflag.FlagSet) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.measurement == "" {
		bad("no --measurement")
	}
	if len(f.stacks)+len(f.releases) == 0 {
		bad("neither --stack nor --release")
	}
	if err := f.trust.check(len(f.releases) > 0); err != nil {
		errs = append(errs, err)
	}
	if len(f.stacks) == 0 {
		for _, name := range shapeFlagNames {
			if flags.Changed(name) {
				bad("--%s without --stack: a release says what it expects", name)
			}
		}
	}
	if f.timeout < 0 {
		bad("--timeout: %v is negative", f.timeout)
	}
	if f.output != "text" && f.output != "json" {
		bad("--output: %q is neither text nor json", f.output)
	}
	errs = append(errs, f.shapeFlags.check(flags))
	return errors.Join(errs...)
}

func (f *explainFlags) run(cmd *cobra.Command) error {
	const hint = "see 'kattest explain --help'"
	if err := f.check(cmd.Flags()); err != nil {
		return cli.Usage(err, hint)
	}
	digest, err := measure.ParseDigest(f.measurement)
	if err != nil {
		return cli.Usage(fmt.Errorf("--measurement: %w", err), "")
	}
	space, err := f.space(cmd.Context(), cmd.Flags())
	if err != nil {
		return err
	}
	if err := space.Check(); err != nil {
		return cli.Usage(err, hint)
	}
	ctx := cmd.Context()
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	e, err := searchLaunch(ctx, digest, space, newSearchProgress(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	if err := cmd.Context().Err(); err != nil {
		return fmt.Errorf("explaining: interrupted after %d of %d digests: %w", e.Searched, e.Space.Digests, err)
	}
	if f.output == "json" {
		err = writeJSON(cmd.OutOrStdout(), e)
	} else {
		err = writeExplanation(cmd.OutOrStdout(), e)
	}
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	if e.Explanation == nil {
		return &cli.Silent{Code: cli.ExitMismatch}
	}
	return nil
}

// space reads what the flags name.
func (f *explainFlags) space(ctx context.Context, flags *pflag.FlagSet) (explain.Space, error) {
	space := usualSpace()
	space.Cmdlines, space.VCPUs = f.cmdlines, f.maxVCPUs
	if f.allFeatures {
		space.Features = explain.AllFeatures()
	}
	if err := f.addReleases(ctx, &space); err != nil {
		return explain.Space{}, err
	}
	if len(f.stacks) == 0 {
		return space, nil
	}
	expected, err := f.expected(flags)
	if err != nil {
		return explain.Space{}, cli.Usage(err, "see 'kattest explain --help'")
	}
	for _, dir := range f.stacks {
		src, err := stackSource(dir, expected)
		if err != nil {
			return explain.Space{}, cli.Usage(err, "")
		}
		space.Sources = append(space.Sources, src)
	}
	return space, nil
}

// addReleases adds the releases, the revoked ones too: what they made is known.
func (f *explainFlags) addReleases(ctx context.Context, space *explain.Space) error {
	t, err := f.trust.load(ctx, time.Now())
	if err != nil {
		return err
	}
	for _, file := range f.releases {
		all, err := t.releases(ctx, file)
		if err != nil {
			return err
		}
		for _, r := range all {
			src, err := releaseSource(r.file, r.Release)
			if err != nil {
				return cli.Usage(fmt.Errorf("%s: %w", r.file, err), "")
			}
			space.Sources = append(space.Sources, src)
		}
	}
	return nil
}

// expected are the shapes that the flags name; what is not given is not expected,
// but for the VMM and its features.
func (f *explainFlags) expected(flags *pflag.FlagSet) ([]measure.Shape, error) {
	shapes, err := f.shapes()
	if err != nil {
		return nil, err
	}
	cpuGiven := flags.Changed("cpu") || flags.Changed("cpu-sig") || flags.Changed("cpu-fms")
	for i := range shapes {
		if !flags.Changed("vcpus") {
			shapes[i].VCPUs = 0
		}
		if !cpuGiven {
			shapes[i].CPU = measure.CPU{}
		}
	}
	return shapes, nil
}
