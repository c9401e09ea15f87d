package kattest

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/resolve"
)

func newLock() *cobra.Command {
	return &cobra.Command{
		Use:   "lock FILE...",
		Short: "Resolve lock files anew",
		Long: `Lock resolves what each lock file asks for to what this machine's Debian
mirror and Go module proxy offer now, and writes the result in its place. What
they offer is checked by Debian's signatures and Go's checksum database.

On standard output stands a line for each file: its SHA-256 and its name.`,
		Args: cli.Args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			for _, file := range files {
				if err := refresh(cmd, file); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func refresh(cmd *cobra.Command, file string) error {
	sets, err := lock.LoadRequests(file)
	if err != nil {
		return cli.Usage(err, "")
	}
	l, err := resolve.Lock(cmd.Context(), sets, cmd.ErrOrStderr())
	if err != nil {
		return &cli.Error{
			Code: cli.ExitUnavailable,
			Err:  fmt.Errorf("%s: %w", file, err),
			Hint: "the lock file is as it was; are the mirrors of /etc/apt and GOPROXY within reach?",
		}
	}
	if err := l.Write(file); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", l.Digest(), file)
	return err
}
