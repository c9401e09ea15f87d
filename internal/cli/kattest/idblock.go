package kattest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/verifier"
)

// idBlockFlags are the flags of kattest idblock.
type idBlockFlags struct {
	inputFlags
	shapeFlags
	measurement, release string
	trust                trustFlags

	policy, familyID, imageID string
	guestSVN                  uint32

	idKey, authorKey  string
	newIDKey          bool
	outBlock, outAuth string

	check            bool
	idBlock, idAuth  string
	output           string
	given            func(flag string) bool
	required, denied uint64 // bits of the guest policy, by the release
}

// launchFlagNames are the sources of a digest, of which one is wanted.
var launchFlagNames = []string{"measurement", "release", "stack", "firmware"}

const p384Hint = "make a key: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out KEY"

func newIDBlock() *cobra.Command {
	var f idBlockFlags
	cmd := &cobra.Command{
		Use:   "idblock",
		Short: "Make, sign and check ID blocks, which hold a host to one launch",
		Long: `Make an ID block for one launch and sign it. A processor that is handed it
launches nothing else than that digest with that guest policy, and its reports
carry the block's labels and the digests of its keys, which 'kattest verify
--id-key' and '--author-key' check.

The digest is --measurement, or that of --stack or of the files, or of --release,
with --vcpus vCPUs of --cpu.

The ID key signs the block. With --author-key, a key that stays the same signs the
ID key, which may then be another for each release; --new-id-key makes one for this
block alone and forgets it. Both are ECDSA on P-384, and each is
  a PEM file    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out id.key
                (the password of an encrypted one is taken from COSIGN_PASSWORD)
  NAME://KEY    in a KMS or HSM, through sigstore's plugin 'sigstore-kms-NAME' in PATH

The files are base64, as QEMU takes it. --check reads such files, in base64 or
binary, prints every field, and holds them against all else that is given; --id-key
and --author-key are public keys then.

Exit status: 0 done, 2 usage or bad input, 3 a signature does not hold, 4 a KMS
cannot be reached, 5 the block is for something else than given.`,
		Example: `  kattest idblock --stack DIR --vcpus 4 --cpu EPYC-v4 --guest-svn 7 \
      --id-key id.key --author-key awskms://alias/author --out-block id.block --out-auth id.auth
  kattest idblock --check --id-block id.block --id-auth id.auth --author-key author.pub \
      --release release.json --key release.pub --vcpus 4`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.given = cmd.Flags().Changed
			if err := f.checkFlags(cmd.Flags()); err != nil {
				return cli.Usage(err, "see 'kattest idblock --help'")
			}
			if f.check {
				return f.runCheck(cmd)
			}
			return f.runSign(cmd)
		},
	}
	flags := cmd.Flags()
	f.inputFlags.register(flags)
	f.shapeFlags.register(flags)
	flags.StringVar(&f.measurement, "measurement", "", "launch digest, 96 hexadecimal digits")
	flags.StringVar(&f.release, "release", "", "release bundle to compute the digest from; needs --key")
	f.trust.register(flags)
	flags.StringVar(&f.policy, "policy", fmt.Sprintf("%#x", idblock.DefaultPolicy), "guest policy; the host must launch with the same")
	flags.StringVar(&f.familyID, "family-id", "", "FAMILY_ID, 32 hexadecimal digits (default zero)")
	flags.StringVar(&f.imageID, "image-id", "", "IMAGE_ID, 32 hexadecimal digits (default zero)")
	flags.Uint32Var(&f.guestSVN, "guest-svn", 0, "GUEST_SVN, the guest's security version")
	flags.StringVar(&f.idKey, "id-key", "", "key that signs the block: PEM file, or NAME://KEY of a KMS")
	flags.StringVar(&f.authorKey, "author-key", "", "key that signs the ID key: PEM file, or NAME://KEY of a KMS")
	flags.BoolVar(&f.newIDKey, "new-id-key", false, "make an ID key for this block alone, and forget it")
	flags.StringVar(&f.outBlock, "out-block", "", "file to write the ID block to")
	flags.StringVar(&f.outAuth, "out-auth", "", "file to write keys and signatures to")
	flags.BoolVar(&f.check, "check", false, "check --id-block and --id-auth")
	flags.StringVar(&f.idBlock, "id-block", "", "ID block to check")
	flags.StringVar(&f.idAuth, "id-auth", "", "keys and signatures to check")
	flags.StringVar(&f.output, "output", "text", "form of the answer: text or json")
	return cmd
}

// checkFlags refuses flags that contradict each other.
func (f *idBlockFlags) checkFlags(flags *pflag.FlagSet) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	together := func(a, b string) {
		if f.given(a) != f.given(b) {
			bad("--%s and --%s go together", a, b)
		}
	}
	if f.output != "text" && f.output != "json" {
		bad("--output: %q is neither text nor json", f.output)
	}
	if err := f.trust.check(f.given("release")); err != nil {
		errs = append(errs, err)
	}
	together("out-block", "out-auth")
	together("id-block", "id-auth")
	if f.check != f.given("id-block") {
		bad("--check and --id-block go together")
	}
	if f.check {
		for _, name := range []string{"new-id-key", "out-block"} {
			if f.given(name) {
				bad("--check and --%s contradict each other", name)
			}
		}
	} else if f.given("id-key") == f.newIDKey {
		bad("want one of --id-key and --new-id-key")
	}
	return errors.Join(append(errs, f.checkSource(flags))...)
}

// checkSource wants one source of the digest; --check can do without.
func (f *idBlockFlags) checkSource(flags *pflag.FlagSet) error {
	var given []string
	for _, name := range launchFlagNames {
		if f.given(name) {
			given = append(given, "--"+name)
		}
	}
	switch {
	case len(given) > 1:
		return fmt.Errorf("%s contradict each other", strings.Join(given, " and "))
	case len(given) == 0 && !f.check:
		return errors.New("nothing says which launch: want one of --measurement, --stack, --firmware, --release")
	case len(given) == 0 || f.given("measurement"):
		for _, name := range append([]string{"kernel", "initrd", "cmdline", "svsm", "vars-size"}, shapeFlagNames...) {
			if f.given(name) {
				return fmt.Errorf("--%s without --stack, --firmware or --release: nothing is computed", name)
			}
		}
		return nil
	case f.given("release"):
		return f.shapeFlags.check(flags)
	}
	return errors.Join(f.inputFlags.check(flags), f.shapeFlags.check(flags))
}

// names says whether the flags name a launch.
func (f *idBlockFlags) names() bool {
	return slices.ContainsFunc(launchFlagNames, f.given)
}

// digest returns the launch digest that the flags name, and keeps the release's
// demands on the guest policy.
func (f *idBlockFlags) digest(cmd *cobra.Command) (measure.Digest, error) {
	if f.given("measurement") {
		d, err := measure.ParseDigest(f.measurement)
		if err != nil {
			return measure.Digest{}, cli.Usage(fmt.Errorf("--measurement: %w", err), "")
		}
		return d, nil
	}
	shapes, err := f.shapes()
	if err != nil {
		return measure.Digest{}, cli.Usage(err, "see 'kattest idblock --help'")
	}
	if len(shapes) != 1 || shapes[0].VMM.Describe().Technology != measure.TechnologySNP {
		return measure.Digest{}, cli.Usage(errors.New("an ID block is for one SEV-SNP launch"), "one value each of --vcpus, --cpu and --guest-features, and a --vmm with SEV-SNP")
	}
	if f.release != "" {
		return f.digestOfRelease(cmd.Context(), shapes)
	}
	in, err := f.read(shapes[0].VMM)
	if err != nil {
		return measure.Digest{}, cli.Usage(err, "")
	}
	if in.hashes == nil && shapes[0].VMM.TakesKernel() {
		fmt.Fprintln(cmd.ErrOrStderr(), "kattest: warning: no --kernel: kernel hashes are off, the ID block says nothing about kernel, initrd and command line")
	}
	d, err := measure.Measure(in.firmware, in.hashes, shapes[0])
	if err != nil {
		return measure.Digest{}, cli.Usage(err, "")
	}
	return d, nil
}

func (f *idBlockFlags) digestOfRelease(ctx context.Context, shapes []measure.Shape) (measure.Digest, error) {
	r, err := f.trust.openOne(ctx, f.release)
	if err != nil {
		return measure.Digest{}, err
	}
	f.required, f.denied = r.Policy.Required, r.Policy.Forbidden
	digests, err := r.Measure(shapes)
	if err != nil {
		return measure.Digest{}, cli.Usage(fmt.Errorf("%s: %w", f.release, err), "")
	}
	return digests[0], nil
}

// checkPolicy holds a guest policy against the release's demands.
func (f *idBlockFlags) checkPolicy(policy uint64) error {
	missing, extra := f.required&^policy, f.denied&policy
	if missing|extra == 0 {
		return nil
	}
	return fmt.Errorf("the release wants another guest policy than %#x: %#x set, %#x clear", policy, f.required, f.denied)
}

// block makes the ID block that the flags describe, but for its digest.
func (f *idBlockFlags) block() (idblock.Block, error) {
	b := idblock.Block{GuestSVN: f.guestSVN}
	var err error
	if b.Policy, err = strconv.ParseUint(f.policy, 0, 64); err != nil {
		return idblock.Block{}, fmt.Errorf("--policy: %q is not a number of 64 bits", f.policy)
	}
	for _, id := range []struct {
		flag, text string
		to         []byte
	}{{"--family-id", f.familyID, b.FamilyID[:]}, {"--image-id", f.imageID, b.ImageID[:]}} {
		if id.text != "" {
			err = errors.Join(err, readHex(id.to, id.flag, id.text))
		}
	}
	if err != nil {
		return idblock.Block{}, err
	}
	return b, nil
}

func (f *idBlockFlags) runSign(cmd *cobra.Command) error {
	b, err := f.block()
	if err != nil {
		return cli.Usage(err, "")
	}
	id, author, err := f.keys(cmd)
	if err != nil {
		return err
	}
	if b.Measurement, err = f.digest(cmd); err != nil {
		return err
	}
	if err := errors.Join(b.Check(), f.checkPolicy(b.Policy)); err != nil {
		return cli.Usage(err, "")
	}
	for _, warning := range policyWarnings(verifier.GuestPolicy(b.Policy)) {
		fmt.Fprintf(cmd.ErrOrStderr(), "kattest: warning: POLICY %#x: %s\n", b.Policy, warning)
	}
	auth, err := idblock.Sign(b, id, author)
	if err != nil {
		return signingError(err)
	}
	s := idblock.Signed{Block: b, Auth: auth}
	if f.outBlock != "" {
		if err := writeIDBlockFiles(s, f.outBlock, f.outAuth); err != nil {
			return err
		}
	}
	return f.write(cmd.OutOrStdout(), s)
}

// keys opens the keys before the work, of which nothing is lost then.
func (f *idBlockFlags) keys(cmd *cobra.Command) (id, author crypto.Signer, err error) {
	if f.newIDKey {
		id, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	} else {
		id, err = openSigner(cmd.Context(), "--id-key", f.idKey)
	}
	if err != nil || f.authorKey == "" {
		return id, nil, err
	}
	author, err = openSigner(cmd.Context(), "--author-key", f.authorKey)
	return id, author, err
}

// policyWarnings says what of a guest policy its owner may not have meant, and
// what KVM would not launch.
// Source: Linux 6.12, arch/x86/kvm/svm/sev.c, snp_launch_start.
func policyWarnings(p verifier.GuestPolicy) []string {
	var warnings []string
	for _, w := range []struct {
		applies bool
		text    string
	}{
		{p&verifier.PolicyDebug != 0, "the host can read and change the guest's memory (DEBUG)"},
		{p&verifier.PolicyMigrateMA != 0, "a migration agent can move the guest elsewhere (MIGRATE_MA)"},
		{p&verifier.PolicySMT == 0, "KVM launches no guest without SMT (Linux 6.12)"},
		{p&^(0xffff|verifier.PolicySMT|verifier.PolicyReserved1|verifier.PolicyDebug) != 0, "KVM knows no bits but ABI version, SMT and DEBUG (Linux 6.12)"},
	} {
		if w.applies {
			warnings = append(warnings, w.text)
		}
	}
	return warnings
}

// readPublicKey reads the public key of an ID block in a PEM file.
func readPublicKey(flag, name string) (idblock.PublicKey, error) {
	pem, err := cli.ReadFile(name, 64<<10)
	if err != nil {
		return idblock.PublicKey{}, err
	}
	key, err := release.ParsePublicKey(pem)
	if err != nil {
		return idblock.PublicKey{}, fmt.Errorf("%s %s: %w", flag, name, err)
	}
	k, err := idblock.NewPublicKey(key)
	if err != nil {
		return idblock.PublicKey{}, fmt.Errorf("%s %s: %w", flag, name, err)
	}
	return k, nil
}
