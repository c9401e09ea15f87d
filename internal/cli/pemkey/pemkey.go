// Package pemkey reads keys from the PEM files that a command line names.
package pemkey

import (
	"crypto"
	"errors"
	"fmt"
	"os"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
)

// ReadPrivate reads a private key; the password of an encrypted one comes from
// COSIGN_PASSWORD.
func ReadPrivate(name string) (crypto.Signer, error) {
	pem, err := cli.ReadFile(name, 1<<20)
	if err != nil {
		return nil, err
	}
	key, err := release.ParsePrivateKey(pem, func() ([]byte, error) {
		password, ok := os.LookupEnv("COSIGN_PASSWORD")
		if !ok {
			return nil, errors.New("the key is encrypted and COSIGN_PASSWORD is not set")
		}
		return []byte(password), nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// ReadPublic reads a public key.
func ReadPublic(name string) (crypto.PublicKey, error) {
	pem, err := cli.ReadFile(name, 64<<10)
	if err != nil {
		return nil, err
	}
	key, err := release.ParsePublicKey(pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}
