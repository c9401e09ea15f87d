package render

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/kraudcloud/kattest/verifier"
)

// Text writes one result: one aligned table, then why each check failed, in full,
// and the verdict last.
func Text(w io.Writer, r verifier.Result) error {
	var b bytes.Buffer
	if r.Simulated {
		fmt.Fprint(&b, "SIMULATED: a simulated processor signed this report; it says nothing of AMD hardware\n\n")
	}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tOUTCOME\tEXPECTED\tFOUND")
	for _, c := range r.Checks {
		outcome := c.Outcome.String()
		if c.Outcome != verifier.Pass {
			outcome = strings.ToUpper(outcome)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", c.Code, outcome, brief(c.Expected), brief(c.Found))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, c := range r.Checks {
		writeReason(&b, c)
	}
	fmt.Fprintf(&b, "\n%s\n", Verdict(r))
	_, err := w.Write(b.Bytes())
	return err
}

func writeReason(b *bytes.Buffer, c verifier.Check) {
	if c.Outcome == verifier.Pass && c.Code != verifier.CodeMeasurement || c.Reason == "" && c.Outcome != verifier.Fail {
		return
	}
	where := string(c.Code)
	if c.Outcome == verifier.Fail && c.Field != "" && c.Field != where {
		where += " (" + c.Field
		if c.Bytes != nil {
			where += fmt.Sprintf(", bytes 0x%03x to 0x%03x", c.Bytes.Offset, c.Bytes.Offset+c.Bytes.Length-1)
		}
		where += ")"
	}
	reason := c.Reason
	if reason == "" {
		reason = "not as it must be"
	}
	fmt.Fprintf(b, "\n%s: %s\n", where, Plain(reason))
	if c.Outcome == verifier.Fail && c.Expected+c.Found != "" {
		fmt.Fprintf(b, "  expected  %s\n  found     %s\n", Plain(c.Expected), Plain(c.Found))
	}
	if c.Hint != "" {
		fmt.Fprintf(b, "  hint      %s\n", Plain(c.Hint))
	}
}

// TextSummary writes many results, a line each, and their verdicts' numbers last.
func TextSummary(w io.Writer, results []verifier.Result) error {
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "REPORT\tVERDICT\tPRODUCT\tWHAT FAILED")
	for _, r := range results {
		var failed []string
		for _, c := range r.With(verifier.Fail) {
			failed = append(failed, string(c.Code))
		}
		verdict := r.Verdict.String()
		if r.Simulated {
			verdict = "SIMULATED " + verdict
		}
		fmt.Fprintf(table, "%s\t%s\t%v\t%s\n", Plain(subject(r)), verdict, r.Product, strings.Join(failed, ", "))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	n, counts := Count(results), []string(nil)
	for v := verifier.Verified; v <= verifier.Malformed; v++ {
		if n[v.String()] > 0 {
			counts = append(counts, fmt.Sprintf("%d %v", n[v.String()], v))
		}
	}
	fmt.Fprintf(&b, "\n%d reports: %s\n", len(results), strings.Join(counts, ", "))
	_, err := w.Write(b.Bytes())
	return err
}

// Verdict is the result in one line.
func Verdict(r verifier.Result) string {
	line := ""
	failed, skipped := r.With(verifier.Fail), r.With(verifier.Skipped)
	switch r.Verdict {
	case verifier.Verified:
		line = fmt.Sprintf("VERIFIED: %d checks pass", len(r.With(verifier.Pass)))
	case verifier.Authentic:
		line = "AUTHENTIC ONLY: signature and certificates hold; what the report says was not judged"
	case verifier.Unavailable:
		var missing []string
		for _, c := range failed {
			missing = append(missing, string(c.Code))
		}
		line = "UNDECIDED: what to judge with is missing: " + strings.Join(missing, ", ")
	case verifier.Mismatch:
		line = fmt.Sprintf("REFUSED: %d of %d checks fail", len(failed), len(r.Checks))
	case verifier.Malformed:
		line = "REFUSED, MALFORMED: neither a report nor evidence as it must be"
	default:
		line = fmt.Sprintf("REFUSED, NOT AUTHENTIC: %d of %d checks fail", len(failed), len(r.Checks))
	}
	if len(skipped) > 0 {
		var codes []string
		for _, c := range skipped {
			codes = append(codes, string(c.Code))
		}
		line += "; left out: " + strings.Join(codes, ", ")
	}
	if r.Simulated {
		line = "SIMULATED " + line
	}
	return line
}

// brief shortens what would widen the table; failures are told in full below it.
func brief(s string) string {
	const width = 34
	runes := []rune(Plain(s))
	if len(runes) <= width {
		return string(runes)
	}
	return string(runes[:width-9]) + "…" + string(runes[len(runes)-8:])
}

// Plain escapes what would move a terminal's cursor or hide text.
func Plain(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
