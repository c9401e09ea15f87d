// Package render writes results for people and for programs: as text, JSON, JUnit,
// SARIF, and as EAR, signed. It judges nothing and changes nothing: every form says
// what the Result says. Forms: docs/spec/result.md, docs/spec/ear.md.
//
// Results hold what adversaries wrote. Text has their control characters escaped;
// the other forms are encoded by the standard library's encoders.
package render

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/kraudcloud/kattest/verifier"
)

// SummaryMediaType names this version of the JSON of many results.
const SummaryMediaType = "application/vnd.kattest.results.v1+json"

// Summary is many results.
type Summary struct {
	MediaType string            `json:"mediaType"`
	Verdicts  map[string]int    `json:"verdicts"` // how many there are of each
	Results   []verifier.Result `json:"results"`
}

// JSON writes one result.
func JSON(w io.Writer, r verifier.Result) error { return encode(w, r) }

// JSONSummary writes many results, in one object.
func JSONSummary(w io.Writer, results []verifier.Result) error {
	return encode(w, Summary{SummaryMediaType, Count(results), results})
}

func encode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	return nil
}

// Count counts the verdicts, by name.
func Count(results []verifier.Result) map[string]int {
	n := map[string]int{}
	for _, r := range results {
		n[r.Verdict.String()]++
	}
	return n
}

// subject is what people call what was judged.
func subject(r verifier.Result) string {
	if r.Subject == "" {
		return "report"
	}
	return r.Subject
}

// details is a failure in one paragraph.
func details(c verifier.Check) string {
	text := fmt.Sprintf("expected %s, found %s", orNothing(c.Expected), orNothing(c.Found))
	if c.Reason != "" {
		text = c.Reason + ": " + text
	}
	if c.Hint != "" {
		text += ". Hint: " + c.Hint
	}
	return text
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
