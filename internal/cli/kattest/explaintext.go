package kattest

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/kraudcloud/kattest/measure/explain"
)

// writeExplanation prints the launch, what differs, and the answer last.
func writeExplanation(w io.Writer, e explanation) error {
	var b bytes.Buffer
	if e.Explanation != nil {
		if err := writeLaunch(&b, *e.Explanation); err != nil {
			return err
		}
	}
	fmt.Fprintln(&b, answerLine(e))
	_, err := w.Write(b.Bytes())
	return err
}

func writeLaunch(w io.Writer, e explain.Explanation) error {
	l := e.Launch
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("VMM", "%v", l.VMM)
	row("VCPUS", "%d", l.VCPUs)
	if l.CPUSignature != 0 {
		row("CPU", "%#x: %s", l.CPUSignature, strings.Join(l.CPUs, ", "))
	}
	row("FEATURES", "%#x", l.GuestFeatures)
	row("FIRMWARE", "%s", l.Firmware)
	if !l.KernelHashes {
		row("KERNEL HASHES", "off")
	} else {
		initrd := l.Initrd
		if initrd == "" {
			initrd = "none"
		}
		row("KERNEL", "%s", l.Kernel)
		row("INITRD", "%s", initrd)
		row("CMDLINE", "%q", l.Cmdline)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, d := range e.Differences {
		fmt.Fprintf(w, "\n%s: %s\n  expected  %s\n  found     %s\n  change    %s\n", d.Field, d.Meaning, d.Expected, d.Found, d.Change)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// answerLine is the answer in one line.
func answerLine(e explanation) string {
	switch x := e.Explanation; {
	case x == nil && e.RuledOut:
		return fmt.Sprintf("RULED OUT: none of %d launches makes it: %d distinct digests in %.1f s", e.Space.Launches, e.Space.Digests, e.Seconds)
	case x == nil:
		return fmt.Sprintf("NOT FOUND: the time was up after %.1f s, with %d of %d distinct digests searched", e.Seconds, e.Searched, e.Space.Digests)
	case len(x.Differences) == 0:
		return fmt.Sprintf("EXPECTED: this is a launch of %s", x.Nearest)
	default:
		return fmt.Sprintf("EXPLAINED: as %s, but for %s", x.Nearest, fieldsOf(*x))
	}
}

func fieldsOf(x explain.Explanation) string {
	var fields []string
	for _, d := range x.Differences {
		fields = append(fields, string(d.Field))
	}
	return strings.Join(fields, ", ")
}
