package cradle

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher"
)

func newArgs() *cobra.Command {
	var flags platformFlags
	cmd := &cobra.Command{
		Use:   "args DIR",
		Short: "Print the QEMU command line that run uses",
		Long: `Print the QEMU command line that run uses, quoted for a shell, an option a line.

It is to be run in DIR. A port that is to be any free one stands as 0. The files
below run/ exist while 'cradle-snp run' does.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.parse()
			if err != nil {
				return err
			}
			v, err := flags.openVM(args[0])
			if err != nil {
				return err
			}
			line, assumed, err := launcher.NewHost().Line(v, o)
			if err != nil {
				return runError(err)
			}
			if assumed != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "assumed: %s\n", assumed)
			}
			return printLine(cmd.OutOrStdout(), line)
		},
	}
	flags.add(cmd)
	return cmd
}

// printLine writes the program, and each option with its value on a line.
func printLine(w io.Writer, line []string) error {
	var b strings.Builder
	for i, arg := range line {
		switch {
		case i == 0:
		case strings.HasPrefix(arg, "-"):
			b.WriteString(" \\\n  ")
		default:
			b.WriteByte(' ')
		}
		b.WriteString(quote(arg))
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// quote makes one word of a POSIX shell.
func quote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+,./:@%"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
