package kattest

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
)

func newVerify() *cobra.Command {
	var f judgeFlags
	cmd := &cobra.Command{
		Use:   "verify REPORT...",
		Short: "Judge attestation reports or guests' evidence",
		Long: `Judge each REPORT: an attestation report of 1184 bytes, one with its certificate
table behind it, evidence or vTPM evidence in JSON, or the HCL report of an Azure VM;
- is standard input. Of a folder, the files that end in .bin or .json are judged,
those of folders in it too.

What is expected of boot stack, workload and freshness must be given, or left
out by a --without flag, which the result shows. What is missing of certificates
and revocation lists is asked of AMD's KDS, unless --offline says not to; with
--trust-simulated nothing is asked.

One REPORT gets a table of all checks; of several, each gets a line.

Exit status: 0 verified, 2 usage or malformed input, 3 signature or certificates
do not hold, 4 a certificate or revocation list is missing, 5 the report says what
is not accepted. Of several reports the worst counts: 3, then 5, 2, 4, 0.`,
		Example: `  kattest verify evidence.json --release release.json --key release.pub \
      --spec spec.json --nonce 00112233445566778899aabbccddeeff
  kattest verify report.bin --vcek vcek.der --authenticity-only
  kattest verify reports/ --authenticity-only --output junit`,
		Args: cli.Args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags(), false); err != nil {
				return err
			}
			all, many, err := subjects(cmd, args)
			if err != nil {
				return err
			}
			if many && f.nonce+f.reportData != "" {
				return cli.Usage(errors.New("--nonce, --report-data: no two reports answer the same question"), "judge them one by one, or with --without-nonce")
			}
			if f.nonce != "" && all[0].isReport() {
				return cli.Usage(errors.New("--nonce: a bare report does not say what it binds a nonce to"), "--report-data HEX, or give the evidence in JSON")
			}
			p, err := f.policy(cmd)
			if err != nil {
				return err
			}
			return f.judge(cmd, all, many, p)
		},
	}
	f.register(cmd.Flags())
	return cmd
}
