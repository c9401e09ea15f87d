package cradle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher"
)

// hintVM says how a command's VM argument is written.
const hintVM = "name a VM by its folder, by the folder's name or by its ID: 'cradle-snp ps --all' lists them"

// findVM returns the VM that an argument means.
func findVM(what string) (launcher.Entry, error) {
	index, err := launcher.DefaultIndex()
	if err != nil {
		return launcher.Entry{}, err
	}
	e, err := index.Find(what)
	if errors.Is(err, launcher.ErrNoSuchVM) || errors.Is(err, launcher.ErrAmbiguous) {
		return launcher.Entry{}, cli.Usage(err, hintVM)
	}
	return e, err
}

// completeVM offers a shell the names of VMs.
func completeVM(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	index, err := launcher.DefaultIndex()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	entries, err := index.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, cobra.ShellCompDirectiveDefault // folders too
}

// noteVM puts a folder into the user's index. Without an index a VM runs as well:
// it is then found by its folder alone.
func noteVM(stderr io.Writer, dir string) {
	index, err := launcher.DefaultIndex()
	if err == nil {
		_, err = index.Add(dir)
	}
	if err != nil {
		fmt.Fprintf(stderr, "cradle-snp: 'ps' will not list %s: %v\n", dir, err)
	}
}

// eachVM does something with every VM that is named, and says by the name as it
// was given which of them it was done with. What fails does not keep it from the
// others.
func eachVM(cmd *cobra.Command, names []string, do func(ctx context.Context, e launcher.Entry) error) error {
	var errs []error
	for _, name := range names {
		e, err := findVM(name)
		if err == nil {
			err = do(cmd.Context(), e)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(cmd.OutOrStdout(), name)
	}
	return vmError(errors.Join(errs...), errs)
}

// vmError gives an error of a VM's its exit code.
func vmError(err error, all []error) error {
	if err == nil {
		return nil
	}
	usage := true
	for _, e := range all {
		known, ok := errors.AsType[*cli.Error](e)
		usage = usage && (ok && known.Code == cli.ExitUsage ||
			errors.Is(e, launcher.ErrNotRunning) || errors.Is(e, launcher.ErrRunning) ||
			errors.Is(e, launcher.ErrForeign) || errors.Is(e, launcher.ErrKept))
	}
	if !usage {
		return err
	}
	hint := ""
	if known, ok := errors.AsType[*cli.Error](err); ok {
		hint = known.Hint
	} else if errors.Is(err, launcher.ErrForeign) {
		hint = "run it as the user who made it, in a folder of mode 0700"
	}
	return cli.Usage(err, hint)
}

func newStop() *cobra.Command {
	var seconds int
	cmd := &cobra.Command{
		Use:   "stop VM...",
		Short: "Ask running guests to stop their containers, and wait for their ends",
		Long: `Ask the agents of running guests to stop their containers, and wait for the
guests' ends.

The agent sends the container its stop signal, and kills it when it does not end
within the launch spec's time. --timeout bounds the whole from outside: then the
guest is ended as it is.`,
		Args:              cli.Args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			if seconds < 0 {
				return cli.Usage(fmt.Errorf("--timeout: %d", seconds), "")
			}
			return eachVM(cmd, args, func(ctx context.Context, e launcher.Entry) error {
				return launcher.Stop(ctx, e.Folder, time.Duration(seconds)*time.Second)
			})
		},
	}
	cmd.Flags().IntVarP(&seconds, "timeout", "t", 0, "longest time to the end, in seconds (default that of 'run --stop-timeout')")
	return cmd
}

func newKill() *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use:   "kill VM...",
		Short: "End running guests at once",
		Long: `End running guests at once, as by pulling the plug.

A host sends no other signal into a confidential guest: 'stop' asks the agent, and
owners have docker's kill through 'kattest connect'.`,
		Args:              cli.Args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch signal {
			case "KILL", "SIGKILL", "9":
			default:
				return cli.Usage(fmt.Errorf("--signal: %q: the host has KILL alone", signal), "'cradle-snp stop' asks the container to end")
			}
			return eachVM(cmd, args, func(ctx context.Context, e launcher.Entry) error {
				return launcher.Kill(ctx, e.Folder)
			})
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "KILL", "KILL, and no other")
	return cmd
}

func newRm() *cobra.Command {
	var force, volumes bool
	cmd := &cobra.Command{
		Use:   "rm VM...",
		Short: "Remove guests' folders",
		Long: `Remove guests' folders: what summon and run put there, and the folders
themselves where nothing else is in them. The boot stack stays; so do the disks
of volumes, unless --volumes is given.`,
		Args:              cli.Args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachVM(cmd, args, func(ctx context.Context, e launcher.Entry) error {
				return removeVM(ctx, cmd.ErrOrStderr(), e, force, volumes)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "end a guest that runs")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "remove the disks of volumes too, with all that is on them")
	return cmd
}

func removeVM(ctx context.Context, stderr io.Writer, e launcher.Entry, force, volumes bool) error {
	if force {
		if err := launcher.Kill(ctx, e.Folder); err != nil && !errors.Is(err, launcher.ErrNotRunning) {
			return err
		}
	}
	kept, err := launcher.Remove(e.Folder, volumes)
	if errors.Is(err, launcher.ErrRunning) {
		return cli.Usage(err, "stop it, or give --force")
	}
	if err != nil && !errors.Is(err, launcher.ErrKept) {
		return err
	}
	if kept != "" {
		fmt.Fprintf(stderr, "cradle-snp: its volumes stay in %s\n", kept)
	}
	index, indexErr := launcher.DefaultIndex()
	if indexErr == nil {
		indexErr = index.Drop(e)
	}
	return errors.Join(err, indexErr)
}
