package kattest

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/kraudcloud/kattest/launcher/probe"
	"github.com/kraudcloud/kattest/measure"
)

// write prints the tables, then the problems, each with its consequence, and
// the verdict last.
func (a firmwareAnswer) write(w io.Writer) error {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "size\t%d bytes\n", a.Size)
	fmt.Fprintf(tw, "SHA-256\t%v\n", a.SHA256)
	if k, ok := probe.Known(a.SHA256); ok {
		fmt.Fprintf(tw, "known as\t%s %s\n", k.Name, k.Version)
	}
	for _, line := range a.abilities() {
		fmt.Fprintf(tw, "%s\t%s\n", line[0], line[1])
	}
	fmt.Fprintln(tw, "\nENTRY\tIMAGE\tSAYS\tGUID")
	for _, e := range a.Table {
		fmt.Fprintf(tw, "%s\t%#x-%#x\t%s\t%s\n", entryName(e), e.Start, e.End, brief(e.Value), e.GUID)
	}
	if len(a.Sections) > 0 {
		fmt.Fprintln(tw, "\nSECTION\tGUEST MEMORY\tTYPE\tMEASURED AS")
	}
	for i, s := range a.Sections {
		fmt.Fprintf(tw, "%d\t%#x-%#x\t%v\t%v\n", i, s.GPA, uint64(s.GPA)+uint64(s.Size), s.Type, s.PageType)
	}
	if a.Probe != nil {
		fmt.Fprintln(tw, "\nBOOT\tENDED\tAFTER\tPRINTED")
		for _, boot := range a.Probe.Boots {
			fmt.Fprintf(tw, "%s\t%v\t%.1f s\t%s\n", boot.Case, boot.Ended, float64(boot.Milliseconds)/1000, boot.Console)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, p := range a.Problems {
		writeProblem(&b, p)
	}
	fmt.Fprintf(&b, "\n%s\n", a.verdict())
	_, err := w.Write(trimLines(b.Bytes()))
	return err
}

func writeProblem(b *bytes.Buffer, p measure.Problem) {
	fmt.Fprintf(b, "\n%s (%v): %s\n", p.Code, p.Effect, p.What)
	if p.End != 0 {
		fmt.Fprintf(b, "  image        %#x-%#x\n", p.Start, p.End)
	}
	fmt.Fprintf(b, "  consequence  %s\n", p.Consequence)
}

func entryName(e measure.TableEntry) string {
	switch {
	case e.Ignored:
		return e.Name + " (ignored: one nearer the footer counts)"
	case e.Name == "":
		return "unknown"
	default:
		return e.Name
	}
}

func (a firmwareAnswer) abilities() [][2]string {
	yes := func(ok bool) string {
		if ok {
			return "yes"
		}
		return "no"
	}
	hashes := "no place for them"
	switch {
	case a.Abilities.KernelHashes:
		hashes = fmt.Sprintf("at %#x", a.HashTable)
	case a.Abilities.KernelHashesSEV:
		hashes = fmt.Sprintf("at %#x, which is measured under SEV and SEV-ES alone", a.HashTable)
	}
	svsm := "no"
	switch {
	case a.Abilities.SVSM:
		svsm = "it is one"
	case a.Abilities.UnderSVSM:
		svsm = "runs beneath one"
	}
	return [][2]string{
		{"SEV-SNP", yes(a.Abilities.SNP)},
		{"SEV-ES", yes(a.Abilities.SEVES)},
		{"SEV", yes(a.Abilities.SEV)},
		{"TDX", yes(a.Abilities.TDX)},
		{"IGVM", yes(a.Abilities.IGVM)},
		{"SVSM", svsm},
		{"kernel hashes", hashes},
	}
}

// verdict is the last line.
func (a firmwareAnswer) verdict() string {
	if !a.Launchable {
		return "NOT LAUNCHABLE with SEV-SNP: " + a.refusals()
	}
	if !a.Abilities.KernelHashes {
		return "LAUNCHABLE with SEV-SNP, WITHOUT KERNEL HASHES: a launch digest says nothing about the kernel"
	}
	known := a.KernelHashes
	if a.Probe != nil {
		known = enforcement{a.Probe.Verdict, a.Probe.Reason}
	}
	switch known.Verdict {
	case probe.Enforced:
		return "LAUNCHABLE with SEV-SNP; kernel hashes are enforced: " + known.Source
	case probe.NotEnforced:
		return "LAUNCHABLE with SEV-SNP; KERNEL HASHES ARE NOT ENFORCED, a launch digest says nothing about the kernel: " + known.Source
	case probe.Inconclusive:
		return "LAUNCHABLE with SEV-SNP; WHETHER KERNEL HASHES ARE ENFORCED COULD NOT BE TOLD: " + known.Source
	default:
		return "LAUNCHABLE with SEV-SNP; WHETHER KERNEL HASHES ARE ENFORCED IS NOT KNOWN: " + known.Source + ", see --probe"
	}
}

// refusals are the codes of the problems that keep it from being launched.
func (a firmwareAnswer) refusals() string {
	var codes []string
	for _, p := range a.Problems {
		if p.Effect == measure.EffectRefused && !slices.Contains(codes, string(p.Code)) {
			codes = append(codes, string(p.Code))
		}
	}
	return strings.Join(codes, ", ")
}

// trimLines drops blanks at the ends of lines, which a table's empty cells leave.
func trimLines(b []byte) []byte {
	lines := strings.Split(string(b), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return []byte(strings.Join(lines, "\n"))
}
