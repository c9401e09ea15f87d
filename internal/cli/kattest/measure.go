package kattest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
)

// measureFlags are the flags of kattest measure.
type measureFlags struct {
	inputFlags
	shapeFlags
	igvmFlags
	signFlags
	output string

	serial  uint64
	corim   string
	policy  policyFlags
	release string
	trust   trustFlags

	transcript, diff bool
}

func newMeasure() *cobra.Command {
	var f measureFlags
	cmd := &cobra.Command{
		Use:   "measure [--diff A B]",
		Short: "Compute the launch digest of a boot stack",
		Long: `Compute the launch digest: what an AMD SEV-SNP processor puts into MEASUREMENT
when a VMM launches this firmware, kernel, initrd and command line with so many
vCPUs of that model. One digest for each combination of --vcpus, CPU and
--guest-features. --vmm says whose way of launching; 'kattest profiles' lists them.

--sign writes a release: the stack's components and the digests, signed. Its
--release-serial tells verifiers which of two is the newer. A key is NAME://KEY of
sigstore's plugin 'sigstore-kms-NAME' in PATH, or a file:
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out release.key
  openssl pkey -in release.key -pubout -out release.pub
The password of an encrypted key is taken from COSIGN_PASSWORD. With '--sign keyless'
an identity signs, by 'kattest-keyless sign': its help says whose token is taken. The
services are those of --signing-config; --trusted-root verifies what they gave.

--corim writes the digests as reference values for other verifiers, with what
--policy demands of guest policy, TCB and processor: a CoRIM by the profile for
SEV-SNP, in CBOR; with --sign in a COSE_Sign1.

--release with --stack holds the stack against a release: its signature, and that
these very bytes are its components and give its digests. Without --stack it
computes further digests from the release alone.

--igvm measures an IGVM file, as QEMU loads it, or as --loader says; without
--vcpus, with those that the file has. Exit status 5 if its ID block is another
launch's.

--transcript prints each step of the chain. --diff takes two transcripts, or
folders of boot stacks, and says where they part; exit status 5 if they do.`,
		Example: `  kattest measure --stack DIR --vcpus 1,2,4 --cpu EPYC-v4,EPYC-Milan-v2
  kattest measure --firmware OVMF.fd --kernel vmlinuz --initrd initrd.cpio \
      --cmdline 'console=ttyS0' --output digest
  kattest measure --stack DIR --sign release.key --bundle release.json
  kattest measure --stack DIR --corim release.corim --sign release.key
  kattest measure --stack DIR --sign keyless --signing-config signing_config.json \
      --trusted-root trusted_root.json --bundle release.json
  kattest measure --stack DIR --release release.json --key release.pub
  kattest measure --release release.json --key release.pub --vcpus 96 --cpu host
  kattest measure --stack DIR --transcript --output json >a.json
  kattest measure --diff a.json DIR
  kattest measure --igvm coconut-qemu.igvm --vcpus 4 --cpu EPYC-Milan-v2`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.diff {
				return cli.Args(cobra.ExactArgs(2))(cmd, args)
			}
			return cli.Args(cobra.NoArgs)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	f.inputFlags.register(flags)
	f.shapeFlags.register(flags)
	f.igvmFlags.register(flags)
	flags.StringVar(&f.output, "output", "text", "text, json or digest (the bare digests, one a line)")
	f.signFlags.register(flags, "key to sign a release or a CoRIM with, with --stack")
	flags.Uint64Var(&f.serial, "release-serial", 0, "serial of the release, larger than that of the one before")
	flags.StringVar(&f.corim, "corim", "", "file to write a CoRIM to; needs --stack")
	f.policy.register(flags)
	flags.StringVar(&f.release, "release", "", "release to hold --stack against, or to compute from; needs --key")
	f.trust.register(flags)
	flags.BoolVar(&f.transcript, "transcript", false, "print each step of one launch's digest")
	flags.BoolVar(&f.diff, "diff", false, "say where two transcripts, or boot stacks, part")
	return cmd
}

func (f measureFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.check(cmd.Flags()); err != nil {
		return cli.Usage(err, "see 'kattest measure --help'")
	}
	if f.igvm != "" {
		return f.runIGVM(cmd)
	}
	if f.release != "" && f.stack != "" {
		return f.checkRelease(cmd)
	}
	shapes, err := f.shapes()
	if err != nil {
		return cli.Usage(err, "see 'kattest measure --help'")
	}
	if f.diff {
		return f.runDiff(cmd, args, shapes)
	}
	by, err := f.signers(cmd.Context()) // before the work, of which nothing is lost then
	if err != nil {
		return err
	}
	in, err := f.read(cmd.Context(), shapes[0].VMM)
	if err != nil {
		return err
	}
	if in.hashes == nil && shapes[0].VMM.TakesKernel() {
		fmt.Fprintln(cmd.ErrOrStderr(), "kattest: warning: no --kernel: kernel hashes are off, the digests say nothing about kernel, initrd and command line")
	}
	in.notices(cmd.ErrOrStderr())
	verdict := in.enforcement(cmd.ErrOrStderr())
	if f.transcript {
		return f.writeTranscript(cmd.OutOrStdout(), in, shapes)
	}
	m, err := in.measure(shapes)
	if err != nil {
		return cli.Usage(err, "")
	}
	if f.bundle != "" || f.corim != "" {
		if err := f.publish(cmd, in, shapes, verdict, by); err != nil {
			return err
		}
	}
	return m.write(cmd.OutOrStdout(), f.output)
}

// read reads what is measured: files, or a release.
func (f measureFlags) read(ctx context.Context, vmm measure.Profile) (inputs, error) {
	if f.release == "" {
		in, err := f.inputFlags.read(vmm)
		if err != nil {
			return inputs{}, cli.Usage(err, "")
		}
		return in, nil
	}
	r, err := f.trust.openOne(ctx, f.release)
	if err != nil {
		return inputs{}, err
	}
	fw, hashes, err := r.Launch()
	if err != nil {
		return inputs{}, cli.Usage(fmt.Errorf("%s: %w", f.release, err), "")
	}
	return inputs{firmware: fw, hashes: &hashes, claim: r.KernelHashes}, nil
}

// checkRelease holds the stack against a release, whose table is the answer.
func (f measureFlags) checkRelease(cmd *cobra.Command) error {
	r, err := f.trust.openOne(cmd.Context(), f.release)
	if err != nil {
		return err
	}
	in, err := f.inputFlags.read(measure.QEMU)
	if err != nil {
		return cli.Usage(err, "")
	}
	if err := in.compare(r.Release); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s, statement SHA-256 %v: the stack gives its %d digests\n", r.name(), r.digest(), len(r.Table))
	m := measurements{MediaType: measurementMediaType, KernelHashes: true}
	for _, e := range r.Table {
		m.add(e.Shape(), e.Measurement)
	}
	return m.write(cmd.OutOrStdout(), f.output)
}

// check refuses flags that contradict each other.
func (f measureFlags) check(flags *pflag.FlagSet) error {
	given := flags.Changed
	if given("igvm") {
		return f.checkIGVM(flags)
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if given("loader") {
		bad("--loader without --igvm")
	}
	inputs := slices.DeleteFunc([]string{"stack", "firmware", "kernel", "initrd", "cmdline", "svsm", "vars-size"},
		func(name string) bool { return !given(name) })
	switch {
	case f.diff:
		for _, name := range append(inputs, "release", "sign", "corim", "transcript") {
			if given(name) {
				bad("--diff and --%s contradict each other", name)
			}
		}
	case given("release"):
		for _, name := range inputs {
			if name != "stack" {
				bad("--release and --%s: the release names its own", name)
			}
		}
	default:
		errs = append(errs, f.inputFlags.check(flags))
	}
	errs = append(errs, f.shapeFlags.check(flags))
	errs = append(errs, f.checkPublish(given)...)
	trust, trustedRoot := f.trust, ""
	if f.sign == signKeyless || !given("release") { // then the root is for what is signed
		trust.trustedRoot, trustedRoot = "", trust.trustedRoot
	}
	errs = append(errs, trust.check(given("release")), f.checkKeyless(trustedRoot))
	if given("release") && given("stack") {
		for _, name := range append(shapeFlagNames, "transcript") {
			if given(name) {
				bad("--release, --stack and --%s: the release names its own launches", name)
			}
		}
	}
	errs = append(errs, f.checkOutput(flags))
	return errors.Join(errs...)
}

// checkOutput refuses a form of output that there is not.
func (f measureFlags) checkOutput(flags *pflag.FlagSet) error {
	switch f.output {
	case "text", "json", "digest":
	default:
		return fmt.Errorf("--output: unknown form %q, want text, json or digest", f.output)
	}
	if flags.Changed("transcript") && (flags.Changed("sign") || flags.Changed("corim") || f.output == "digest") {
		return errors.New("--transcript: as text or json, and without --sign or --corim")
	}
	return nil
}
