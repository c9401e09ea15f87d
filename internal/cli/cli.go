// Package cli is what the commands share: how an error reaches the user and
// with which exit code. The command trees stand in the folders below.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes. Documented in docs/exit-codes.md.
const (
	ExitVerified    = 0 // done; for verify: every check holds
	ExitInternal    = 1 // something failed that is none of the below
	ExitUsage       = 2 // the command line or an input file is wrong
	ExitSignature   = 3 // a signature or certificate chain does not hold
	ExitUnavailable = 4 // collateral could not be had; may be retried
	ExitMismatch    = 5 // policy or measurement mismatch
)

// Error is an error with an exit code and, where one helps, a hint: what to do next.
type Error struct {
	Code int
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Usage says that the user's input is at fault.
func Usage(err error, hint string) error { return &Error{ExitUsage, err, hint} }

// Silent ends the program with an exit code after the command has already said
// why on standard output, as verify does with its verdict.
type Silent struct{ Code int }

func (s *Silent) Error() string { return fmt.Sprintf("exit code %d", s.Code) }

// Main runs the command tree and returns the process's exit code. SIGINT and
// SIGTERM cancel the command's context.
func Main(root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Usage(err, fmt.Sprintf("see '%s --help'", cmd.CommandPath()))
	})
	if !root.Runnable() { // cobra's own complaint of an unknown command has no type
		root.Args = Args(cobra.NoArgs)
		root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	err := root.ExecuteContext(ctx)
	return report(root.Name(), err, stderr)
}

func report(name string, err error, stderr io.Writer) int {
	if err == nil {
		return ExitVerified
	}
	if silent, ok := errors.AsType[*Silent](err); ok {
		return silent.Code
	}
	fmt.Fprintf(stderr, "%s: error: %v\n", name, err)
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return ExitInternal
	}
	if e.Hint != "" {
		fmt.Fprintf(stderr, "%s: hint: %s\n", name, e.Hint)
	}
	return e.Code
}

// Args turns cobra's complaints about positional arguments into usage errors.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return Usage(err, fmt.Sprintf("see '%s --help'", cmd.CommandPath()))
		}
		return nil
	}
}
