package kattest

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/pemkey"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/measure/release"
)

// openSigner opens a key that signs ID blocks: a PEM file, or NAME://KEY, which
// sigstore's plugin sigstore-kms-NAME reaches. A plugin is a program of its own,
// so that no provider's library is linked to the verifying path.
func openSigner(ctx context.Context, flag, ref string) (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	if strings.Contains(ref, "://") {
		key, err = openKMS(ctx, flag, ref, crypto.SHA384)
	} else if key, err = pemkey.ReadPrivate(ref); err != nil {
		err = cli.Usage(fmt.Errorf("%s: %w", flag, err), p384Hint)
	}
	if err != nil {
		return nil, err
	}
	if _, err := idblock.NewPublicKey(key.Public()); err != nil {
		return nil, cli.Usage(fmt.Errorf("%s %s: %w", flag, ref, err), p384Hint)
	}
	return key, nil
}

// openKMS opens NAME://KEY, which signs with that hash.
func openKMS(ctx context.Context, flag, ref string, hash crypto.Hash) (crypto.Signer, error) {
	key, err := kms.Get(ctx, ref, hash)
	if _, ok := errors.AsType[*kms.ProviderNotFoundError](err); ok {
		name, _, _ := strings.Cut(ref, "://")
		return nil, cli.Usage(fmt.Errorf("%s: %w", flag, err), fmt.Sprintf("put sigstore's KMS plugin sigstore-kms-%s into PATH", name))
	}
	if err != nil {
		return nil, unavailable(fmt.Errorf("%s %s: %w", flag, ref, err))
	}
	public, err := key.PublicKey(options.WithContext(ctx))
	if err != nil {
		return nil, unavailable(fmt.Errorf("%s %s: %w", flag, ref, err))
	}
	return sigstoreSigner{ctx, key, public}, nil
}

// errUnavailable marks what a KMS did not do.
var errUnavailable = errors.New("the KMS does not sign")

// sigstoreSigner is a key behind sigstore's interface as a crypto.Signer. The
// KMS's own CryptoSigner has no context and keeps errors to itself.
type sigstoreSigner struct {
	ctx    context.Context
	key    signature.Signer
	public crypto.PublicKey
}

func (s sigstoreSigner) Public() crypto.PublicKey { return s.public }

func (s sigstoreSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	message, withOptions := "", []signature.SignOption{options.WithContext(s.ctx), options.WithCryptoSignerOpts(opts)}
	if opts.HashFunc() == 0 { // Ed25519 signs the message itself
		message = string(digest)
	} else {
		withOptions = append(withOptions, options.WithDigest(digest))
	}
	der, err := s.key.SignMessage(strings.NewReader(message), withOptions...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	return der, nil
}

// signingError gives what a key did wrong its exit code.
func signingError(err error) error {
	switch {
	case errors.Is(err, errUnavailable):
		return unavailable(err)
	case errors.Is(err, idblock.ErrSignature), errors.Is(err, release.ErrSignature):
		return &cli.Error{Code: cli.ExitSignature, Err: err}
	}
	return err
}

func unavailable(err error) error {
	return &cli.Error{Code: cli.ExitUnavailable, Err: err, Hint: "the plugin says more on standard error; it may be tried again"}
}
