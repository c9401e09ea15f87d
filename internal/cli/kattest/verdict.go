package kattest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/kraudcloud/kattest/verifier"
)

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// writeVerdict prints one aligned table, then why each check failed, in full,
// and the verdict last.
func writeVerdict(w io.Writer, r verifier.Result) error {
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
		if c.Outcome == verifier.Pass && c.Code != verifier.CodeMeasurement || c.Reason == "" {
			continue
		}
		fmt.Fprintf(&b, "\n%s: %s\n", c.Code, c.Reason)
		if c.Outcome == verifier.Fail {
			fmt.Fprintf(&b, "  expected  %s\n  found     %s\n", c.Expected, c.Found)
		}
		if c.Hint != "" {
			fmt.Fprintf(&b, "  hint      %s\n", c.Hint)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", verdictLine(r))
	_, err := w.Write(b.Bytes())
	return err
}

func verdictLine(r verifier.Result) string {
	line := ""
	failed, skipped := r.With(verifier.Fail), r.With(verifier.Skipped)
	switch r.Verdict {
	case verifier.Verified:
		line = fmt.Sprintf("VERIFIED: %d checks pass", len(r.With(verifier.Pass)))
	case verifier.Authentic:
		line = "AUTHENTIC ONLY: signature and certificates hold; what the report says was not judged"
	case verifier.Unavailable:
		line = "UNDECIDED: no certificate to judge the signature with"
	case verifier.Mismatch:
		line = fmt.Sprintf("REFUSED: %d of %d checks fail", len(failed), len(r.Checks))
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
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	return string(runes[:width-9]) + "…" + string(runes[len(runes)-8:])
}
