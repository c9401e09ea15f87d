package lock

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Change is one package or module that another lock file has otherwise.
type Change struct {
	Kind, Name string
	// Before and After are the versions, with commas between them; "" where there
	// is none.
	Before, After string
	// Bytes says that a file is another under the same version, which no archive
	// that keeps its word serves.
	Bytes bool
}

func (c Change) String() string {
	switch {
	case c.Before == "":
		return fmt.Sprintf("added    %s %s", c.Name, c.After)
	case c.After == "":
		return fmt.Sprintf("removed  %s %s", c.Name, c.Before)
	case c.Bytes:
		return fmt.Sprintf("OTHER BYTES under the same version: %s %s", c.Name, c.Before)
	default:
		return fmt.Sprintf("changed  %s %s -> %s", c.Name, c.Before, c.After)
	}
}

// Changes returns in what the inputs of after are not those of before, by kind
// and name.
func Changes(before, after Lock) []Change {
	type id struct{ kind, name string }
	group := func(l Lock) map[id][]Input {
		all := map[id][]Input{}
		for _, in := range l.Inputs {
			all[id{in.Kind, in.Name}] = append(all[id{in.Kind, in.Name}], in)
		}
		return all
	}
	old, now := group(before), group(after)
	names := maps.Clone(old)
	maps.Copy(names, now)
	var changes []Change
	for n := range names {
		c := Change{Kind: n.kind, Name: n.name, Before: versions(old[n]), After: versions(now[n])}
		c.Bytes = c.Before == c.After && hashes(old[n]) != hashes(now[n])
		if c.Before != c.After || c.Bytes {
			changes = append(changes, c)
		}
	}
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return changes
}

func versions(inputs []Input) string {
	return joined(inputs, func(in Input) string { return in.Version })
}

func hashes(inputs []Input) string { return joined(inputs, func(in Input) string { return in.SHA256 }) }

func joined(inputs []Input, text func(Input) string) string {
	var all []string
	for _, in := range inputs {
		all = append(all, text(in))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}
