package lock_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/reproducible/lock"
)

func TestChanges(t *testing.T) {
	deb := func(name, version, hash string) lock.Input {
		return lock.Input{Kind: lock.KindDeb, Name: name, Version: version, SHA256: strings.Repeat(hash, 64)}
	}
	before := lock.Lock{Inputs: []lock.Input{
		deb("same", "1", "1"), deb("newer", "1", "2"), deb("gone", "1", "3"), deb("swapped", "1", "4"), deb("source", "1", "5"), deb("source", "1", "6"),
	}}
	after := lock.Lock{Inputs: []lock.Input{
		deb("same", "1", "1"), deb("newer", "2", "7"), deb("fresh", "1", "8"), deb("swapped", "1", "9"), deb("source", "1", "6"), deb("source", "1", "5"),
	}}
	var got []string
	for _, c := range lock.Changes(before, after) {
		got = append(got, c.String())
	}
	want := []string{
		"added    fresh 1", "removed  gone 1", "changed  newer 1 -> 2", "OTHER BYTES under the same version: swapped 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if c := lock.Changes(after, after); c != nil {
		t.Errorf("changes %v of itself", c)
	}
}
