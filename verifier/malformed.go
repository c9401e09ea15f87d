package verifier

import (
	"errors"
	"fmt"
	"strings"
)

// MalformedError is what is wrong with the form of an input, all of it.
type MalformedError struct{ Problems []Problem }

func (e *MalformedError) Error() string {
	var text []string
	for _, p := range e.Problems {
		text = append(text, p.String())
	}
	return strings.Join(text, "; ")
}

// Problem is one thing that is wrong with the form of an input.
type Problem struct {
	Code            Code
	Bytes           Range // of the report, where it is narrower than the code's
	Expected, Found string
	Reason          string // may be empty
}

// String names field, bytes, what was found and what was expected.
func (p Problem) String() string {
	info, where := p.Code.info(), "report"
	if info.Field != "" {
		where = info.Field
	}
	at := p.Bytes
	if at == (Range{}) {
		at = info.Bytes
	}
	if at.Length > 0 && p.Code != CodeSize {
		where = fmt.Sprintf("report: %s (bytes 0x%03x to 0x%03x)", info.Field, at.Offset, at.Offset+at.Length-1)
	}
	if p.Reason != "" {
		return where + ": " + p.Reason
	}
	return fmt.Sprintf("%s: %s, want %s", where, p.Found, p.Expected)
}

// problem returns the error of one problem.
func problem(p Problem) error { return &MalformedError{[]Problem{p}} }

// problems returns those of all of errs.
func problems(errs ...error) []Problem {
	var all []Problem
	for _, err := range errs {
		if e, ok := errors.AsType[*MalformedError](err); ok {
			all = append(all, e.Problems...)
		} else if err != nil {
			all = append(all, Problem{Code: CodeEvidence, Reason: err.Error()})
		}
	}
	return all
}
