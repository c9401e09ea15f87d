package logs

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/pemkey"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/release/tlog"
	"github.com/kraudcloud/kattest/measure/release/tlog/store"
)

func newAdd() *cobra.Command {
	var keys []string
	var sign string
	cmd := &cobra.Command{
		Use:   "add DIR BUNDLE...",
		Short: "Put what was signed into a log, and the proof into its bundle",
		Long: `Put the signatures of bundles into the log in DIR, and into each bundle, in its place,
the proof that it stands there. Each must be signed by one of --key: a log that takes
anything is read by none. Only the signature and the key become public, with a digest
of the statement, never the statement.

All bundles are checked before anything is written. Stopped half-way, the same command
is to be given again: what stands in the log is found, and not added twice. A bundle
that has its proof is left alone.

Keys are ECDSA's or RSA's; verifiers of sigstore take no Ed25519 key's entry.`,
		Example: `  kattest log add log release.json sbom.json --sign log.key --key release.pub`,
		Args:    cli.Args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if sign == "" || len(keys) == 0 {
				return cli.Usage(errors.New("--sign and --key are both needed"), "see 'kattest log add --help'")
			}
			return add(cmd, args[0], args[1:], sign, keys)
		},
	}
	cmd.Flags().StringVar(&sign, "sign", "", "the log's private key, PEM")
	cmd.Flags().StringArrayVar(&keys, "key", nil, "public key of which one must have signed each bundle, PEM; may be given more than once")
	return cmd
}

// bundle is one that is to be logged.
type bundle struct {
	file string
	data []byte
	key  crypto.PublicKey
	leaf []byte
}

func add(cmd *cobra.Command, dir string, files []string, sign string, keyFiles []string) error {
	key, err := pemkey.ReadPrivate(sign)
	if err != nil {
		return cli.Usage(err, keyHint)
	}
	keys, err := readKeys(keyFiles)
	if err != nil {
		return err
	}
	var bundles []bundle
	for _, file := range files {
		b, err := readBundle(file, keys)
		if err != nil {
			return err
		}
		bundles = append(bundles, b)
	}
	log, err := store.Open(cmd.Context(), dir, key)
	if errors.Is(err, store.ErrKey) {
		return cli.Usage(fmt.Errorf("--sign %s: %w", sign, err), "a log has one key, for good")
	}
	if err != nil {
		return cli.Usage(err, "'kattest log init' makes a log; a damaged one is to be restored from a copy, and never begun anew")
	}
	defer log.Close()
	return logAll(cmd, log, bundles)
}

// logAll adds what has no proof yet, and answers where each stands.
func logAll(cmd *cobra.Command, log *store.Log, bundles []bundle) error {
	at := make([]int64, len(bundles))
	var leaves [][]byte
	var missing []int // of bundles
	for i, b := range bundles {
		in, err := tlog.Check(b.data, b.key, []tlog.Log{log.Log})
		switch {
		case err == nil:
			at[i] = in.Index
		case errors.Is(err, tlog.ErrNotLogged):
			leaves, missing = append(leaves, b.leaf), append(missing, i)
		default:
			return &cli.Error{Code: cli.ExitSignature, Err: fmt.Errorf("%s: %w", b.file, err), Hint: "take the bundle as it was signed"}
		}
	}
	if err := attach(cmd.Context(), log, bundles, leaves, missing, at); err != nil {
		return err
	}
	for i, b := range bundles {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s %d\n", b.file, log.Origin, at[i]); err != nil {
			return err
		}
	}
	return nil
}

// attach adds leaves, and writes the proofs of them into the bundles that miss them.
func attach(ctx context.Context, log *store.Log, bundles []bundle, leaves [][]byte, missing []int, at []int64) error {
	if len(leaves) == 0 {
		return nil
	}
	tree, indexes, err := log.Add(ctx, leaves)
	if err != nil {
		return err
	}
	for n, i := range missing {
		b := bundles[i]
		out, err := tree.Attach(b.data, b.leaf, indexes[n])
		if err != nil {
			return err
		}
		// Whoever verifies it must find what was meant.
		if _, err := tlog.Check(out, b.key, []tlog.Log{log.Log}); err != nil {
			return fmt.Errorf("%s: %w", b.file, err)
		}
		if err := wholefile.Write(b.file, out, 0o644); err != nil {
			return fmt.Errorf("it stands in the log at %d, and the same command will find it: %w", indexes[n], err)
		}
		at[i] = indexes[n]
	}
	return nil
}

// readBundle reads what one of the keys signed.
func readBundle(file string, keys []crypto.PublicKey) (bundle, error) {
	data, err := cli.ReadFile(file, release.MaxBundle)
	if err != nil {
		return bundle{}, cli.Usage(err, "")
	}
	_, by, err := release.Verify(data, keys...)
	switch {
	case errors.Is(err, release.ErrSignature):
		return bundle{}, &cli.Error{Code: cli.ExitSignature, Err: fmt.Errorf("%s: none of the keys signed it: %w", file, err)}
	case err != nil:
		return bundle{}, cli.Usage(fmt.Errorf("%s: %w", file, err), "")
	}
	b := bundle{file: file, data: data, key: keys[by]}
	if b.leaf, err = tlog.Leaf(data, b.key); err != nil {
		return bundle{}, cli.Usage(fmt.Errorf("%s: %w", file, err), "")
	}
	return b, nil
}

func readKeys(files []string) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for _, file := range files {
		key, err := pemkey.ReadPublic(file)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--key %w", err), "")
		}
		keys = append(keys, key)
	}
	return keys, nil
}
