package kattest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
)

// signKeyless is the --sign that names no key.
const signKeyless = "keyless"

// signFlags say who signs a statement, and where its bundle goes.
type signFlags struct {
	sign, bundle                 string
	signingConfig, identityToken string
}

func (f *signFlags) register(flags *pflag.FlagSet, what string) {
	flags.StringVar(&f.sign, "sign", "", what+": PEM file, NAME://KEY of a KMS, or 'keyless' for an identity")
	flags.StringVar(&f.bundle, "bundle", "", "file to write what is signed to")
	flags.StringVar(&f.signingConfig, "signing-config", "", "sigstore's signing configuration, JSON, for --sign keyless")
	flags.StringVar(&f.identityToken, "identity-token", "", "file with the identity token for --sign keyless (default $SIGSTORE_ID_TOKEN, or GitHub's)")
}

// registerTrustedRoot is for commands that do not verify too.
func registerTrustedRoot(flags *pflag.FlagSet, to *string) {
	flags.StringVar(to, "trusted-root", "", "sigstore's trusted root, JSON, to verify with what --sign keyless made")
}

// checkKeyless refuses what contradicts itself; trustedRoot is that of signing.
func (f *signFlags) checkKeyless(trustedRoot string) error {
	switch {
	case f.sign == signKeyless && f.signingConfig == "":
		return errors.New("--sign keyless needs --signing-config: there are no default services")
	case f.sign != signKeyless && (f.signingConfig != "" || f.identityToken != "" || trustedRoot != ""):
		return errors.New("--signing-config, --identity-token and --trusted-root are for --sign keyless")
	}
	return nil
}

// statementSigner signs an in-toto statement and returns the bundle.
type statementSigner func(ctx context.Context, statement []byte) ([]byte, error)

// open opens the key, or finds the program that does without one.
func (f *signFlags) open(ctx context.Context, trustedRoot string) (statementSigner, error) {
	if f.sign == signKeyless {
		program, err := findKeyless()
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--sign keyless: %w", err), keylessHint)
		}
		args := []string{"sign", "--signing-config", f.signingConfig, "--identity-token", f.identityToken, "--trusted-root", trustedRoot}
		return func(ctx context.Context, statement []byte) ([]byte, error) {
			return askToSign(ctx, program, args, statement)
		}, nil
	}
	key, err := openReleaseSigner(ctx, f.sign)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, statement []byte) ([]byte, error) {
		b, err := release.SignStatement(statement, key)
		if err != nil {
			return nil, signingError(err)
		}
		return b, nil
	}, nil
}

func askToSign(ctx context.Context, program string, args []string, statement []byte) ([]byte, error) {
	b, err := runKeyless(ctx, program, args, statement)
	if errors.Is(err, release.ErrSignature) {
		return nil, &cli.Error{Code: cli.ExitSignature, Err: err}
	}
	if err != nil {
		return nil, err
	}
	claim, err := release.Claims(b)
	if err != nil {
		return nil, fmt.Errorf("%s: its answer: %w", program, err)
	}
	if !bytes.Equal(claim.Statement, statement) {
		return nil, fmt.Errorf("%s: its answer is about something else", program)
	}
	return b, nil
}
