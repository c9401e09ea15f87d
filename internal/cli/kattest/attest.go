package kattest

import (
	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
)

func newAttest() *cobra.Command {
	var f guestFlags
	cmd := &cobra.Command{
		Use:   "attest ADDR",
		Short: "Challenge a running guest and judge its answer",
		Long: `Ask the guest's agent at ADDR (HOST:PORT, or vsock:CID:PORT) for evidence over a fresh nonce, and
judge it as verify does. That this connection ends at the key which the report binds,
and is the one that it was made for, is one of the checks; no certificate authority
takes part.`,
		Example: `  kattest attest --release release.json --key release.pub --spec spec.json 127.0.0.1:4711`,
		Args:    cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd, args[0]); err != nil {
				return err
			}
			p, err := f.judge.policy(cmd)
			if err != nil {
				return err
			}
			guest, err := f.attest(cmd, args[0], p)
			if err != nil {
				return err
			}
			return guest.conn.Close()
		},
	}
	f.register(cmd)
	return cmd
}
