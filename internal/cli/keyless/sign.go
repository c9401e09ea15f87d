package keyless

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/release/keyless"
)

// signFlags are the flags of kattest-keyless sign.
type signFlags struct{ signingConfig, identityToken, trustedRoot string }

func newSign() *cobra.Command {
	var f signFlags
	cmd := &cobra.Command{
		Use:   "sign --signing-config FILE",
		Short: "Sign an in-toto statement by an identity, without a key",
		Long: `Sign the in-toto statement on standard input, and print a sigstore bundle v0.3.
'kattest measure --sign keyless' runs this.

Certificate authority, time stamping authorities and transparency logs are those of the
signing configuration, of which there is no default. The identity token is that of
--identity-token, of SIGSTORE_ID_TOKEN, or GitHub's, for whose jobs 'permissions:
id-token: write' has it set ACTIONS_ID_TOKEN_REQUEST_URL and
ACTIONS_ID_TOKEN_REQUEST_TOKEN. Nobody is asked. What is signed is published: logs of
version 1 keep the statement, those of version 2 its digest, both keep the identity.

With --trusted-root the bundle is verified before it is printed, as any verifier does.

Exit status: 0 signed, 2 usage, bad configuration or token, 3 what a service gave does
not hold, 4 a service did not answer as it should; try again.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.signingConfig, "signing-config", "", "sigstore's signing configuration, JSON (required)")
	flags.StringVar(&f.identityToken, "identity-token", "", "file with the identity token (default $SIGSTORE_ID_TOKEN, or GitHub's)")
	flags.StringVar(&f.trustedRoot, "trusted-root", "", "sigstore's trusted root, JSON, to verify the bundle with")
	return cmd
}

func (f signFlags) run(cmd *cobra.Command) error {
	services, trusted, err := f.read()
	if err != nil {
		return cli.Usage(err, "see 'kattest-keyless sign --help'")
	}
	statement, err := cli.ReadAll("standard input", cmd.InOrStdin(), release.MaxBundle)
	if err != nil {
		return cli.Usage(err, "")
	}
	token, err := f.token(cmd.Context())
	if err != nil {
		return signError(err)
	}
	b, err := keyless.Sign(cmd.Context(), statement, token, services, trusted)
	if err != nil {
		return signError(err)
	}
	_, err = cmd.OutOrStdout().Write(b)
	return err
}

func (f signFlags) read() (services keyless.Services, trusted root.TrustedMaterial, err error) {
	if f.signingConfig == "" {
		return services, nil, errors.New("no --signing-config: there are no default services")
	}
	data, err := cli.ReadFile(f.signingConfig, keyless.MaxSigningConfig)
	if err != nil {
		return services, nil, err
	}
	if services, err = keyless.ParseSigningConfig(data, time.Now()); err != nil {
		return keyless.Services{}, nil, fmt.Errorf("%s: %w", f.signingConfig, err)
	}
	if f.trustedRoot == "" {
		return services, nil, nil
	}
	if trusted, err = readTrustedRoot(f.trustedRoot); err != nil {
		return keyless.Services{}, nil, err
	}
	return services, trusted, nil
}

func readTrustedRoot(name string) (*root.TrustedRoot, error) {
	data, err := cli.ReadFile(name, keyless.MaxTrustedRoot)
	if err != nil {
		return nil, err
	}
	trusted, err := keyless.ParseTrustedRoot(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return trusted, nil
}

// token takes the first that is given.
func (f signFlags) token(ctx context.Context) (keyless.Token, error) {
	if f.identityToken != "" {
		data, err := cli.ReadFile(f.identityToken, keyless.MaxToken)
		if err != nil {
			return "", cli.Usage(err, "")
		}
		return keyless.ParseToken(data)
	}
	if token := os.Getenv("SIGSTORE_ID_TOKEN"); token != "" {
		return keyless.ParseToken([]byte(token))
	}
	if address := os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"); address != "" {
		return keyless.GitHubToken(ctx, address, os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN"))
	}
	return "", cli.Usage(errors.New("no identity token"), "give --identity-token or SIGSTORE_ID_TOKEN, or let GitHub's job have 'permissions: id-token: write'")
}

// signError gives what went wrong its exit code.
func signError(err error) error {
	switch {
	case errors.Is(err, release.ErrSignature):
		return &cli.Error{Code: cli.ExitSignature, Err: err}
	case errors.Is(err, keyless.ErrUnavailable):
		return &cli.Error{Code: cli.ExitUnavailable, Err: err, Hint: "nothing is signed; try again"}
	case errors.Is(err, keyless.ErrToken):
		return cli.Usage(err, "get a new token; they live for minutes")
	}
	return err
}
