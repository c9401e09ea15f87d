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

On standard output stands a line for each package or module that has changed, and
one for each file: its SHA-256 and its name.`,
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
	before, err := lock.Load(file)
	if err != nil {
		before = lock.Lock{} // requests alone, as they were begun by hand
	}
	if err := l.Write(file); err != nil {
		return err
	}
	for _, c := range lock.Changes(before, l) {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), c); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", l.Digest(), file)
	return err
}
