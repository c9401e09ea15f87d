package measure

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// UnknownError is a name that is not one of those there are.
type UnknownError struct {
	What    string   // "VMM", "CPU model"
	Name    string   // as given
	Nearest []string // up to three of the names there are, the likeliest first
}

func newUnknownError(what, name string, names []string) *UnknownError {
	ranked := slices.Clone(names)
	slices.SortStableFunc(ranked, func(a, b string) int { return cmp.Compare(distance(name, a), distance(name, b)) })
	return &UnknownError{What: what, Name: name, Nearest: ranked[:min(3, len(ranked))]}
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("unknown %s %.80q; near to it are %s", e.What, e.Name, strings.Join(e.Nearest, ", "))
}

// distance is the number of letters to insert, delete or replace to make b of a,
// whatever their case: Levenshtein's, of at most the first 64 bytes.
func distance(a, b string) int {
	a, b = strings.ToLower(a[:min(64, len(a))]), strings.ToLower(b[:min(64, len(b))])
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
