// Package logs is the command kattest-log, which `kattest log` runs: a publisher's
// own transparency log. The library that keeps it and its telemetry stay out of the
// program that judges reports.
package logs

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/pemkey"
	"github.com/kraudcloud/kattest/measure/release/tlog/store"
)

// New returns the command.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kattest-log",
		Short: "Keep a transparency log of what a publisher signs, and watch one",
		Long: `Keep a transparency log of what a publisher's keys sign, as a folder of static files,
and watch one. 'kattest log' runs this program, which is to stand beside kattest or
in PATH.

With 'kattest verify --log trusted_root.json' a release counts only if it carries the
proof that it stands in the log. Whoever shows one customer another release than the
rest must then put it where all can see it, or keep two logs, which 'monitor' finds.`,
	}
	cmd.AddCommand(newInit(), newAdd(), newServe(), newMonitor())
	return cmd
}

const keyHint = "a log's key: openssl genpkey -algorithm ed25519 -out log.key"

func newInit() *cobra.Command {
	var origin, sign string
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Make a log without entries",
		Long: `Make a log without entries in DIR, which must not be there. Its key is Ed25519's, in a
PEM file; the password of an encrypted one comes from COSIGN_PASSWORD. DIR holds
nothing secret: the key stays where it is.

DIR/trusted_root.json is what verifiers are told of the log: hand it out as you hand
out your public key. Origin and key name the log; neither can be changed.`,
		Example: `  openssl genpkey -algorithm ed25519 -out log.key
  kattest log init log --origin log.example.org --sign log.key`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if origin == "" || sign == "" {
				return cli.Usage(errors.New("--origin and --sign are both needed"), "see 'kattest log init --help'")
			}
			key, err := pemkey.ReadPrivate(sign)
			if err != nil {
				return cli.Usage(err, keyHint)
			}
			log, err := store.Init(cmd.Context(), args[0], origin, key)
			switch {
			case errors.Is(err, fs.ErrExist):
				return cli.Usage(err, "a log is made once: add to it")
			case errors.Is(err, store.ErrKey):
				return cli.Usage(fmt.Errorf("--sign %s: %w", sign, err), keyHint)
			case err != nil:
				return cli.Usage(err, "")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %x\n", log.Origin, log.ID())
			return err
		},
	}
	cmd.Flags().StringVar(&origin, "origin", "", "the log's name: a host name, as log.example.org, which need not exist")
	cmd.Flags().StringVar(&sign, "sign", "", "the log's private key, PEM")
	return cmd
}
