package kattest

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
)

// revokeFlags are the flags of kattest revoke.
type revokeFlags struct {
	signFlags
	until, trustedRoot string
	belowSerial        uint64
	releases           []string
}

func newRevoke() *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Sign a list of releases that no longer hold",
		Long: `Sign a list of the publisher's releases that no longer hold: all with a serial below
--below-serial, and single ones by their statements' SHA-256, which 'kattest measure'
prints. 'kattest verify --revocation' takes it, with the key that signed the releases.

A list replaces those before it, so that it names all that is revoked. It is good
until --until: make a new one in time, even if nothing has changed. An old one, handed
out in its place, serves nobody for longer.`,
		Example: `  kattest revoke --below-serial 7 --until 2027-01-31T00:00:00Z --sign release.key --bundle revocation.json`,
		Args:    cli.Args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.Uint64Var(&f.belowSerial, "below-serial", 0, "revoke all releases with a smaller serial")
	flags.StringArrayVar(&f.releases, "revoked-release", nil, "revoke the release with that SHA-256 of its statement; may be given more than once")
	flags.StringVar(&f.until, "until", "", "time until which the list is good, RFC 3339")
	f.register(flags, "key or identity that signed the releases")
	registerTrustedRoot(flags, &f.trustedRoot)
	return cmd
}

func (f *revokeFlags) run(cmd *cobra.Command) error {
	v, err := f.revocation()
	if err != nil {
		return cli.Usage(err, "see 'kattest revoke --help'")
	}
	statement, err := v.Statement()
	if err != nil {
		return cli.Usage(err, "")
	}
	sign, err := f.open(cmd.Context(), f.trustedRoot)
	if err != nil {
		return err
	}
	b, err := sign(cmd.Context(), statement)
	if err != nil {
		return err
	}
	if err := wholefile.Write(f.bundle, b, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "revocation of serials below %d and %d single releases written to %s, good until %s\n",
		v.BelowSerial, len(v.Releases), f.bundle, v.Until.Format(time.RFC3339))
	return nil
}

// revocation is what the flags say, and everything that is wrong with it.
func (f *revokeFlags) revocation() (release.Revocation, error) {
	if f.sign == "" || f.bundle == "" || f.until == "" {
		return release.Revocation{}, errors.New("want --sign, --bundle and --until")
	}
	if err := f.checkKeyless(f.trustedRoot); err != nil {
		return release.Revocation{}, err
	}
	v := release.Revocation{BelowSerial: f.belowSerial}
	var err error
	if v.Until, err = time.Parse(time.RFC3339, f.until); err != nil {
		return release.Revocation{}, fmt.Errorf("--until: %q is not a time such as 2027-01-31T12:00:00Z", f.until)
	}
	for _, text := range f.releases {
		digest, err := measure.ParseHash(text)
		if err != nil {
			return release.Revocation{}, fmt.Errorf("--revoked-release: %w", err)
		}
		v.Releases = append(v.Releases, digest)
	}
	return v, v.Check()
}
