package cradle

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// psMediaType names this version of the list in JSON.
const psMediaType = "application/vnd.kattest.ps.v1+json"

type psFlags struct {
	all, quiet, noTrunc bool
	output              string
}

func newPs() *cobra.Command {
	f := psFlags{}
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List guests",
		Long: `List the guests of this user that run; with --all, all whose folders are there.

Whether one runs is told by its launcher's lock on the folder.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd)
		},
	}
	cmd.Flags().BoolVarP(&f.all, "all", "a", false, "also those that do not run")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "IDs alone")
	cmd.Flags().BoolVar(&f.noTrunc, "no-trunc", false, "do not shorten")
	cmd.Flags().StringVar(&f.output, "output", "text", "form of the answer: text or json")
	return cmd
}

func (f psFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return cli.Usage(fmt.Errorf("--output: %q is neither text nor json", f.output), "")
	}
	index, err := launcher.DefaultIndex()
	if err != nil {
		return err
	}
	entries, err := index.List()
	if err != nil {
		return err
	}
	list := []inspected{}
	for _, e := range entries {
		i, err := inspectVM(e)
		if err != nil { // one that cannot be read does not hide the others
			fmt.Fprintf(cmd.ErrOrStderr(), "cradle-snp: %v\n", err)
			continue
		}
		if f.all || i.State.Running {
			list = append(list, i)
		}
	}
	w := cmd.OutOrStdout()
	switch {
	case f.output == "json":
		return printJSON(w, struct {
			MediaType string      `json:"mediaType"`
			VMs       []inspected `json:"vms"`
		}{psMediaType, list})
	case f.quiet:
		for _, i := range list {
			fmt.Fprintln(w, i.ID)
		}
		return nil
	}
	return f.table(w, list, time.Now())
}

func (f psFlags) table(w io.Writer, list []inspected, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "VM ID\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tPORTS\tNAMES")
	for _, i := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i.ID,
			f.short(plain(i.Image), 40), f.short(plain(fmt.Sprintf("%q", strings.Join(i.Args, " "))), 22),
			ago(i.Created, now), i.State.sentence(now), strings.Join(ports(i.Ports), ", "), plain(i.Name))
	}
	return table.Flush()
}

func (f psFlags) short(s string, n int) string {
	if r := []rune(s); !f.noTrunc && len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// sentence is docker's, as far as there is one.
func (s inspectedState) sentence(now time.Time) string {
	switch s.phase {
	case launcher.Running:
		return "Up " + span(now.Sub(s.StartedAt)) + s.Health.note()
	case launcher.Starting:
		return "Starting"
	case launcher.Exited:
		switch {
		case s.stopped:
			return "Killed " + ago(s.FinishedAt, now)
		case s.Error != "":
			return "Failed " + ago(s.FinishedAt, now)
		}
		return fmt.Sprintf("Exited (%d) %s", s.ExitCode, ago(s.FinishedAt, now))
	case launcher.Dead:
		return "Dead"
	default:
		return "Created"
	}
}

// note is docker's, behind the time that it runs.
func (h *health) note() string {
	switch {
	case h == nil:
		return ""
	case h.Status == port.HealthStarting:
		return " (health: starting)"
	}
	return fmt.Sprintf(" (%s)", plain(string(h.Status)))
}

func ago(t, now time.Time) string { return span(now.Sub(t)) + " ago" }

// span says a time in the largest unit of which there are two.
func span(d time.Duration) string {
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"days", 24 * time.Hour}, {"hours", time.Hour}, {"minutes", time.Minute}} {
		if d >= 2*u.unit {
			return fmt.Sprintf("%d %s", d/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%d seconds", max(d, 0)/time.Second)
}

func ports(forwards []vm.Forward) []string {
	var all []string
	for _, f := range forwards {
		if f.HostPort == 0 {
			all = append(all, fmt.Sprintf("%d/%s", f.GuestPort, f.Protocol))
			continue
		}
		all = append(all, fmt.Sprintf("%s:%d->%d/%s", f.HostAddress, f.HostPort, f.GuestPort, f.Protocol))
	}
	return all
}

func printJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}
