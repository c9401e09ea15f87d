package cradle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/vm"
)

type logsFlags struct {
	follow, timestamps, console bool
	tail, since, until          string
}

func newLogs() *cobra.Command {
	f := logsFlags{}
	cmd := &cobra.Command{
		Use:   "logs VM",
		Short: "Print a container's output, as far as the host may have it",
		Long: `Print a container's output, where the launch spec lets the host have it
('summon --console output'). The last 16 to 32 MiB are kept, across runs.

With --console, what firmware, kernel and agent print, of the last run.`,
		Args:              cli.Args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeVM,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, args[0])
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on until the guest ends")
	flags.BoolVarP(&f.timestamps, "timestamps", "t", false, "put the time before each line")
	flags.StringVarP(&f.tail, "tail", "n", "all", "the last `NUMBER` lines")
	flags.StringVar(&f.since, "since", "", "only what came since a `TIME` (2006-01-02T15:04:05Z) or a span ago (10m)")
	flags.StringVar(&f.until, "until", "", "only what came before a `TIME` or a span ago")
	flags.BoolVar(&f.console, "console", false, "what firmware, kernel and agent print instead")
	return cmd
}

func (f logsFlags) run(cmd *cobra.Command, what string) error {
	sel, err := f.selection(time.Now())
	if err != nil {
		return cli.Usage(err, "")
	}
	e, err := findVM(what)
	if err != nil {
		return err
	}
	if f.console {
		if f.follow || f.timestamps || f.tail != "all" || f.since != "" || f.until != "" {
			return cli.Usage(errors.New("--console goes with no other option"), "")
		}
		return printConsole(cmd.OutOrStdout(), e.Folder)
	}
	if v, err := vm.Read(e.Folder); err == nil && v.Spec.Console != pod.ConsoleOutput {
		fmt.Fprintf(cmd.ErrOrStderr(), "cradle-snp: the launch spec lets the host have no output of this container (console is %q)\n", v.Spec.Console)
	}
	p := &logPrinter{stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), timestamps: f.timestamps}
	var last []launcher.Output // with --tail, until all that is there was read
	err = launcher.Logs(cmd.Context(), e.Folder, f.follow, func(o launcher.Output) bool {
		switch {
		case !sel.wants(o):
		case sel.tail >= 0:
			last = append(last, o)
			last = last[max(0, len(last)-sel.tail):]
		default:
			p.print(o)
		}
		return p.err == nil
	}, func() {
		for _, o := range last {
			p.print(o)
		}
		last, sel.tail = nil, -1
	})
	return errors.Join(vmError(err, []error{err}), p.err)
}

// selection is which lines are wanted.
type selection struct {
	since, until time.Time // zero: no bound
	tail         int       // negative: all
}

func (f logsFlags) selection(now time.Time) (selection, error) {
	s := selection{tail: -1}
	var err error
	if f.tail != "all" {
		if s.tail, err = strconv.Atoi(f.tail); err != nil || s.tail < 0 {
			return selection{}, fmt.Errorf("--tail: %q is neither a number nor all", f.tail)
		}
	}
	if s.since, err = parseTime(f.since, now); err != nil {
		return selection{}, fmt.Errorf("--since: %w", err)
	}
	if s.until, err = parseTime(f.until, now); err != nil {
		return selection{}, fmt.Errorf("--until: %w", err)
	}
	return s, nil
}

func (s selection) wants(o launcher.Output) bool {
	return !o.Time.Before(s.since) && (s.until.IsZero() || o.Time.Before(s.until))
}

// parseTime reads a time, or a span before now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a time such as 2006-01-02T15:04:05Z nor a span such as 10m", s)
}

// logPrinter prints lines to the streams that they came from.
type logPrinter struct {
	stdout, stderr io.Writer
	timestamps     bool
	err            error
}

func (p *logPrinter) print(o launcher.Output) {
	w := p.stdout
	if o.Stream == "stderr" {
		w = p.stderr
	}
	text := o.Log
	if p.timestamps {
		text = o.Time.UTC().Format(time.RFC3339Nano) + " " + text
	}
	if _, err := io.WriteString(w, text); err != nil && p.err == nil {
		p.err = err
	}
}

func printConsole(w io.Writer, dir string) error {
	f, err := os.Open(filepath.Join(dir, launcher.ConsoleFile))
	if err != nil {
		return cli.Usage(err, "the guest has not run")
	}
	defer f.Close()
	return launcher.CopyPlain(w, f)
}
