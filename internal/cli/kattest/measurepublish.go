package kattest

import (
	"context"
	"crypto"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/launcher/probe"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
)

// checkPublish refuses flags of what is published that contradict each other.
func (f measureFlags) checkPublish(given func(string) bool) []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if given("sign") && !given("bundle") && !given("corim") {
		bad("--sign without --bundle or --corim")
	}
	if given("bundle") && !given("sign") {
		bad("--bundle without --sign")
	}
	for _, name := range []string{"sign", "corim"} {
		if given(name) && !given("stack") {
			bad("--%s needs --stack, which names the components and the lock", name)
		}
		if given(name) && given("release") {
			bad("--release and --%s contradict each other", name)
		}
	}
	if given("release-serial") && !given("sign") && !given("corim") {
		bad("--release-serial without --sign or --corim")
	}
	if given("corim") && f.sign == signKeyless {
		bad("--corim: a key signs it, and no identity")
	}
	if given("policy") && !given("corim") {
		bad("--policy without --corim")
	}
	return errs
}

// signers sign what is published.
type signers struct {
	release statementSigner
	corim   crypto.Signer
}

// signers opens who --sign names.
func (f measureFlags) signers(ctx context.Context) (by signers, err error) {
	if f.sign == "" {
		return signers{}, nil
	}
	if f.bundle != "" {
		if by.release, err = f.open(ctx, f.trust.trustedRoot); err != nil {
			return signers{}, err
		}
	}
	if f.corim != "" {
		if by.corim, err = openReleaseSigner(ctx, f.sign); err != nil {
			return signers{}, err
		}
	}
	return by, nil
}

// publish writes the release, the CoRIM or both. Each file is either whole or not
// there, and neither is if one cannot be made.
func (f measureFlags) publish(cmd *cobra.Command, in inputs, shapes []measure.Shape, verdict probe.Verdict, by signers) error {
	claim, err := claimOf(verdict)
	if err != nil {
		return err
	}
	r, err := release.New(in.stack, in.firmware, shapes, claim)
	if err != nil {
		return err
	}
	r.Serial = f.serial
	statement, err := r.Statement()
	if err != nil {
		return cli.Usage(err, "")
	}
	digest := measure.Hash(sha256.Sum256(statement))
	var bundle, manifest []byte
	var references int
	if f.corim != "" {
		if manifest, references, err = f.makeCoRIM(cmd, r, digest, by.corim); err != nil {
			return err
		}
	}
	if f.bundle != "" {
		if bundle, err = by.release(cmd.Context(), statement); err != nil {
			return err
		}
		if err := wholefile.Write(f.bundle, bundle, 0o644); err != nil {
			return err
		}
		// By the statement's digest a revocation names it.
		fmt.Fprintf(cmd.ErrOrStderr(), "release of %d digests written to %s, %s, statement SHA-256 %v\n", len(r.Table), f.bundle, serialText(f.serial), digest)
	}
	if f.corim != "" {
		if err := wholefile.Write(f.corim, manifest, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "CoRIM of %d reference values written to %s, %s\n", references, f.corim, serialText(f.serial))
	}
	return nil
}

// makeCoRIM returns the CoRIM and how many references it has.
func (f measureFlags) makeCoRIM(cmd *cobra.Command, r release.Release, statement measure.Hash, key crypto.Signer) ([]byte, int, error) {
	policy, err := f.policy.read()
	if err != nil {
		return nil, 0, err
	}
	if lacks := corimLacks(policy.Policy); len(lacks) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "kattest: warning: a CoRIM has no place for these, and does not demand them: %s\n", strings.Join(lacks, ", "))
	}
	m, err := corimManifest(r, statement, policy.Policy)
	if err != nil {
		return nil, 0, cli.Usage(err, "")
	}
	out, err := encodeCoRIM(m, key)
	return out, len(m.References), err
}
