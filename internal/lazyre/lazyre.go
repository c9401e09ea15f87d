// Package lazyre compiles regular expressions when they are first used. A program
// pays at its start for every one that is compiled in a package's variables,
// whatever it was started for.
package lazyre

import (
	"regexp"
	"sync"
)

// New returns a function that returns the compiled expression. It panics at the
// first call if the expression is none.
func New(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
