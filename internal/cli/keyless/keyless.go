// Package keyless is the command kattest-keyless, which kattest runs for bundles
// that a certificate signs: sigstore's signer and verifier and their some seventy
// modules stay out of the program that judges reports.
package keyless

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/release/keyless"
)

// New returns the command.
func New() *cobra.Command {
	var id release.Identity
	var trustedRoot string
	cmd := &cobra.Command{
		Use:   "kattest-keyless",
		Short: "Check a sigstore bundle that an identity signed without a key",
		Long: `Check the sigstore bundle on standard input, and print the statement that it holds
and who signed it, as JSON. 'kattest verify --identity' runs this program, which is
to stand beside kattest or in PATH.

Demanded are, under the trusted root and without a network: a certificate of its
certificate authority, with a certificate log's promise (SCT); an entry of its
transparency log; a time by that log or by its time stamping authority, at which
the certificate was valid; and that the certificate names the identity and issuer.
A pattern is a regular expression of Go's that must match all of the name; write \.
for a dot.

Exit status: 0 it holds, 2 usage, bad trusted root or no bundle, 3 it does not hold.`,
		Example: `  kattest-keyless --trusted-root trusted_root.json --issuer https://token.actions.githubusercontent.com \
      --identity https://github.com/ORG/REPO/.github/workflows/release.yml@refs/tags/v1.0 <release.json`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := check(cmd, id, trustedRoot)
			if err != nil {
				return err
			}
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(answer); err != nil {
				return fmt.Errorf("writing the answer: %w", err)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&trustedRoot, "trusted-root", "", "sigstore's trusted root, JSON")
	flags.StringVar(&id.Subject, "identity", "", "who signed: the certificate's subject alternative name")
	flags.StringVar(&id.SubjectPattern, "identity-pattern", "", "the same by a pattern")
	flags.StringVar(&id.Issuer, "issuer", "", "OpenID Connect issuer that vouched for the identity")
	flags.StringVar(&id.IssuerPattern, "issuer-pattern", "", "the same by a pattern")
	cmd.AddCommand(newSign())
	return cmd
}

func check(cmd *cobra.Command, id release.Identity, trustedRoot string) (release.Keyless, error) {
	if err := id.Check(); err != nil {
		return release.Keyless{}, cli.Usage(err, "see 'kattest-keyless --help'")
	}
	if trustedRoot == "" {
		return release.Keyless{}, cli.Usage(errors.New("no --trusted-root"), "cosign trusted-root create makes one, and sigstore publishes its own")
	}
	trusted, err := readTrustedRoot(trustedRoot)
	if err != nil {
		return release.Keyless{}, cli.Usage(err, "")
	}
	bundle, err := cli.ReadAll("standard input", cmd.InOrStdin(), release.MaxBundle)
	if err != nil {
		return release.Keyless{}, cli.Usage(err, "")
	}
	statement, by, err := keyless.Verify(bundle, trusted, id)
	switch {
	case errors.Is(err, release.ErrSignature):
		return release.Keyless{}, &cli.Error{Code: cli.ExitSignature, Err: err}
	case err != nil:
		return release.Keyless{}, cli.Usage(err, "")
	}
	return release.Keyless{MediaType: release.KeylessMediaType, Signer: by, Statement: statement}, nil
}
