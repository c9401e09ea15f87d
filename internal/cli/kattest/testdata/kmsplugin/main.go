// Command sigstore-kms-file is a KMS plugin of sigstore's for tests. Its keys
// are PEM files, by name; a name that ends in .liar shows the public key of
// another file, NAME without .liar, than the one it signs with.
package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"
)

func main() {
	if err := answer(); err != nil {
		fmt.Fprintln(os.Stderr, "sigstore-kms-file:", err)
		if err := handler.WriteErrorResponse(os.Stdout, err); err != nil {
			os.Exit(1)
		}
	}
}

func answer() error {
	args, err := handler.GetPluginArgs(os.Args)
	if err != nil {
		return err
	}
	key, err := load(args.InitOptions.KeyResourceID, args.InitOptions.HashFunc)
	if err != nil {
		return err
	}
	_, err = handler.Dispatch(os.Stdout, os.Stdin, args, key)
	return err
}

func load(name string, hash crypto.Hash) (*key, error) {
	signer, err := signature.LoadSignerVerifierFromPEMFile(name, hash, cryptoutils.SkipPassword)
	if err != nil {
		return nil, err
	}
	shown := signature.SignerVerifier(signer)
	if other, ok := strings.CutSuffix(name, ".liar"); ok {
		if shown, err = signature.LoadSignerVerifierFromPEMFile(other, hash, cryptoutils.SkipPassword); err != nil {
			return nil, err
		}
	}
	return &key{signer, shown}, nil
}

// key implements sigstore's kms.SignerVerifier.
type key struct {
	signature.SignerVerifier
	shown signature.SignerVerifier
}

func (k *key) PublicKey(o ...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return k.shown.PublicKey(o...)
}

var errFixed = errors.New("the keys are files")

func (*key) CreateKey(context.Context, string) (crypto.PublicKey, error) { return nil, errFixed }

func (*key) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, errFixed
}

func (*key) SupportedAlgorithms() []string { return nil }
func (*key) DefaultAlgorithm() string      { return "" }
