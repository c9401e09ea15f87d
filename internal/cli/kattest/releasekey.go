package kattest

import (
	"context"
	"crypto"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/pemkey"
)

const releaseKeyHint = "make a key: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY"

// readReleaseKey reads a public key: a PEM file, or NAME://KEY of a KMS.
func readReleaseKey(ctx context.Context, ref string) (crypto.PublicKey, error) {
	if strings.Contains(ref, "://") {
		key, _, err := openReleaseKMS(ctx, "--key", ref)
		if err != nil {
			return nil, err
		}
		return key.Public(), nil
	}
	key, err := pemkey.ReadPublic(ref)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--key %w", err), "")
	}
	return key, nil
}

// openReleaseSigner opens a key that signs releases: a PEM file, or NAME://KEY of
// a KMS.
func openReleaseSigner(ctx context.Context, ref string) (crypto.Signer, error) {
	if !strings.Contains(ref, "://") {
		key, err := pemkey.ReadPrivate(ref)
		if err != nil {
			return nil, cli.Usage(err, releaseKeyHint)
		}
		return key, nil
	}
	key, hash, err := openReleaseKMS(ctx, "--sign", ref)
	if err != nil || hash == crypto.SHA256 {
		return key, err
	}
	return openKMS(ctx, "--sign", ref, hash) // a KMS wants to know the hash beforehand
}

// openReleaseKMS opens a key in a KMS, and returns the hash that sigstore uses
// with keys of its kind.
func openReleaseKMS(ctx context.Context, flag, ref string) (crypto.Signer, crypto.Hash, error) {
	key, err := openKMS(ctx, flag, ref, crypto.SHA256)
	if err != nil {
		return nil, 0, err
	}
	algorithm, err := signature.GetDefaultAlgorithmDetails(key.Public())
	if err != nil {
		return nil, 0, cli.Usage(fmt.Errorf("%s %s: %w", flag, ref, err), "")
	}
	return key, algorithm.GetHashType(), nil
}
