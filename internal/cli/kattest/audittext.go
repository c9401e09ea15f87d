package kattest

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/reproducible/audit"
)

// writeAudit writes a report for people: the table, what differs, the verdict.
func writeAudit(w io.Writer, r signedRelease, report audit.Report) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "WHAT\tRELEASE")
	for _, c := range report.Copies {
		fmt.Fprintf(table, "\t%s", strings.ToUpper(c))
	}
	fmt.Fprintln(table)
	for _, row := range report.Subject {
		fmt.Fprintf(table, "%s\t%s", printable(row.Name), cmp.Or(abbreviated(row.Release), "-"))
		for _, value := range row.Copies {
			fmt.Fprintf(table, "\t%s", outcome(value, row.Release))
		}
		fmt.Fprintln(table)
	}
	fmt.Fprintf(table, "launch digests\t%d", len(report.Launches))
	for i := range report.Copies {
		fmt.Fprintf(table, "\t%s", launchOutcome(report.Launches, i))
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	for _, f := range report.Findings {
		writeFinding(w, f)
	}
	for i, c := range report.Copies {
		writeLaunches(w, c, report.Launches, i)
	}
	verdict := "SAME"
	switch {
	case !report.Same():
		verdict = "DIFFERENT: " + differing(report)
	case len(report.Copies) == 0:
		verdict = "SIGNED: nothing was held against it (--stack, --rebuild)"
	}
	_, err := fmt.Fprintf(w, "\n%s, statement SHA-256 %v: %s\n", r.name(), report.Statement, verdict)
	return err
}

// differing names what differs, and of which copies.
func differing(report audit.Report) string {
	var names []string
	for _, f := range report.Findings {
		names = append(names, fmt.Sprintf("%s (%s)", printable(f.Name), f.Copy))
	}
	return strings.Join(names, ", ")
}

// shownHash is how much of a hash or a command line the table shows.
const shownHash = 16

func abbreviated(value string) string {
	if len(value) > shownHash {
		return printable(value[:shownHash]) + "…"
	}
	return printable(value)
}

func outcome(value, want string) string {
	switch value {
	case want:
		return "same"
	case "":
		return "MISSING"
	}
	return "DIFFERS"
}

func launchOutcome(launches []audit.Launch, i int) string {
	differ := 0
	for _, l := range launches {
		if l.Copies[i] != l.Entry.Measurement.String() {
			differ++
		}
	}
	if differ > 0 {
		return fmt.Sprintf("%d DIFFER", differ)
	}
	return "same"
}

func writeFinding(w io.Writer, f audit.Finding) {
	fmt.Fprintf(w, "\n%s of the %s copy", printable(f.Name), f.Copy)
	if f.Other != "" {
		fmt.Fprintf(w, ", beside the %s one", f.Other)
	}
	fmt.Fprintln(w)
	if f.Stage != "" {
		fmt.Fprintf(w, "  parted at the stage: %s\n", printable(f.Stage))
	}
	if f.Inside != nil {
		fmt.Fprintf(w, "  inside: %s\n", printable(f.Inside.String()))
	}
	if f.Note != "" {
		fmt.Fprintf(w, "  %s\n", printable(f.Note))
	}
}

// writeLaunches shows the first launch whose digest a copy's files change.
func writeLaunches(w io.Writer, name string, launches []audit.Launch, i int) {
	for _, l := range launches {
		if l.Copies[i] == l.Entry.Measurement.String() {
			continue
		}
		fmt.Fprintf(w, "\nthe measurement of the %s copy, %s\n  the release's %v\n  this one's    %s\n",
			name, launchName(l.Entry), l.Entry.Measurement, cmp.Or(l.Copies[i], "none: it cannot be launched"))
		return
	}
}

func launchName(e release.Entry) string {
	return fmt.Sprintf("%v, %d vCPUs, CPU %v", e.VMM, e.VCPUs, e.Shape().CPU)
}
