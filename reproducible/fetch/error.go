package fetch

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/reproducible/lock"
)

// maxMissing is how many missing inputs are looked for before giving up.
const maxMissing = 8

// UnavailableError says which inputs are to be had nowhere. The command line
// ends with exit code 4.
type UnavailableError struct{ Missing []Missing }

// Missing is an input and where it was looked for.
type Missing struct {
	Input lock.Input
	Tried []Attempt
}

// Attempt is one place and why it did not serve.
type Attempt struct {
	Where string
	Err   error
}

func (e *UnavailableError) Error() string {
	var b strings.Builder
	for i, m := range e.Missing {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(m.String())
	}
	if len(e.Missing) == maxMissing {
		b.WriteString("\nthere may be more: not looked for")
	}
	return b.String()
}

func (m Missing) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "input %s (%s, SHA-256 %s) is to be had nowhere", m.Input, m.Input.File(), m.Input.SHA256)
	for _, a := range m.Tried {
		fmt.Fprintf(&b, "; %s: %v", a.Where, a.Err)
	}
	return b.String()
}

// Hint says what to do next.
func (e *UnavailableError) Hint() string {
	if len(e.Missing) == 0 {
		return ""
	}
	return fmt.Sprintf("refresh the lock file with 'make lock', or put %s into a folder and name it with --inputs DIR",
		e.Missing[0].Input.File())
}

func (e *UnavailableError) sorted() *UnavailableError {
	slices.SortFunc(e.Missing, func(a, b Missing) int { return strings.Compare(a.Input.Path, b.Input.Path) })
	return e
}

// missingError carries one missing input to where they are gathered.
type missingError struct{ Missing }

func (e *missingError) Error() string { return e.String() }
