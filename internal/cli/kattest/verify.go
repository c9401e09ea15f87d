package kattest

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
)

func newVerify() *cobra.Command {
	var f judgeFlags
	cmd := &cobra.Command{
		Use:   "verify REPORT",
		Short: "Judge an attestation report or a guest's evidence",
		Long: `Judge REPORT: an attestation report of 1184 bytes, one with its certificate
table behind it, or evidence in JSON; - is standard input.

What is expected of boot stack, workload and freshness must be given, or left
out by a --without flag, which the result shows. The network is not used.

Exit status: 0 verified, 2 usage or bad input, 3 signature or certificates do
not hold, 4 a certificate is missing, 5 the report says what is not accepted.`,
		Example: `  kattest verify evidence.json --release release.json --key release.pub \
      --spec spec.json --nonce 00112233445566778899aabbccddeeff
  kattest verify report.bin --vcek vcek.der --authenticity-only`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags(), false); err != nil {
				return err
			}
			in, err := readInput(cmd, args[0])
			if err != nil {
				return err
			}
			if f.nonce != "" && in.Evidence == nil {
				return cli.Usage(errors.New("--nonce: a bare report does not say what it binds a nonce to"), "--report-data HEX, or give the evidence in JSON")
			}
			p, err := f.policy(cmd)
			if err != nil {
				return err
			}
			return f.judge(cmd, in, p)
		},
	}
	f.register(cmd.Flags())
	return cmd
}
