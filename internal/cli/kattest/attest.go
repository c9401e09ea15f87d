package kattest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/channel"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/verifier"
)

func newAttest() *cobra.Command {
	var f judgeFlags
	var save string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "attest ADDR",
		Short: "Challenge a running guest and judge its answer",
		Long: `Ask the guest's agent at ADDR (HOST:PORT) for evidence over a fresh nonce, and
judge it as verify does. That the connection ends at the key which the report
binds is one of the checks; no certificate authority takes part.`,
		Example: `  kattest attest --release release.json --key release.pub --spec spec.json 127.0.0.1:4711`,
		Args:    cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags(), true); err != nil {
				return err
			}
			if f.reportData != "" || f.withoutNonce {
				return cli.Usage(errors.New("attest makes a nonce of its own: --report-data and --without-nonce have no place"), "'kattest verify' judges what was kept with --save")
			}
			if _, _, err := net.SplitHostPort(args[0]); err != nil {
				return cli.Usage(fmt.Errorf("ADDR: %w", err), "want HOST:PORT, as cradle-snp run prints it")
			}
			p, err := f.policy(cmd)
			if err != nil {
				return err
			}
			if p.Nonce == nil {
				p.Nonce = make([]byte, 32)
				_, _ = rand.Read(p.Nonce) // never fails, by its documentation
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			data, key, exporter, err := challenge(ctx, args[0], p.Nonce)
			if err != nil {
				return &cli.Error{Code: cli.ExitUnavailable, Err: fmt.Errorf("asking %s for evidence: %w", args[0], err), Hint: "is the guest's agent serving there?"}
			}
			in, err := verifier.ParseInput(data)
			if err == nil && in.Evidence == nil {
				err = errors.New("not evidence in JSON")
			}
			if err != nil {
				return &cli.Error{Code: cli.ExitUnavailable, Err: fmt.Errorf("the answer of %s: %w", args[0], err), Hint: "what answers there is no agent, or lies"}
			}
			if save != "" {
				if err := wholefile.Write(save, data, 0o644); err != nil {
					return err
				}
			}
			p.TLSKey, p.TLSExporter = key, exporter
			return f.judge(cmd, []subject{{args[0], data}}, false, p)
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&save, "save", "", "keep the evidence in this file")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the answer")
	return cmd
}

// challenge asks for evidence over nonce and returns the answer, and the key and the
// exporter of the connection. It trusts nothing: the verifier compares them with those
// that the report binds.
func challenge(ctx context.Context, addr string, nonce []byte) (answer, key, exporter []byte, err error) {
	conn, err := channel.Dial(ctx, addr, nil)
	if err != nil {
		return nil, nil, nil, err
	}
	defer conn.Close()
	if exporter, err = conn.Exporter(); err != nil {
		return nil, nil, nil, err
	}
	if answer, err = conn.Challenge(ctx, nonce); err != nil {
		return nil, nil, nil, err
	}
	return answer, conn.Key(), exporter, nil
}
