package kattest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
)

// logProgram keeps logs: adr 0019 says why it is a program.
const logProgram = "kattest-log"

func newLog() *cobra.Command {
	return &cobra.Command{
		Use:   "log init|add|serve|monitor",
		Short: "Keep a transparency log of what a publisher signs, and watch one",
		Long: `Keep a transparency log of what a publisher signs, and watch one: this runs kattest-log,
which is to stand beside kattest or in PATH, and 'kattest log --help' says what it can.`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			program, err := findProgram(logProgram)
			if err != nil {
				return cli.Usage(err, "put "+logProgram+" beside kattest or into PATH: go install ./cmd/"+logProgram)
			}
			run := exec.CommandContext(cmd.Context(), program, args...)
			run.Cancel = func() error { return run.Process.Signal(os.Interrupt) } // it ends in order
			run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			err = run.Run()
			if run.ProcessState != nil && run.ProcessState.Success() {
				return nil // it was told to end, and did
			}
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
				return &cli.Silent{Code: exit.ExitCode()}
			}
			if err != nil {
				return fmt.Errorf("running %s: %w", program, err)
			}
			return nil
		},
	}
}
