package tlog

import (
	"context"
	"errors"
	"fmt"
)

// Misbehaviour says that a log broke its promise to grow and never change. Known
// and Shown are checkpoints, both signed by the log, which cannot both be true of
// one log; Shown is empty where the log shows no tree that its checkpoint covers.
type Misbehaviour struct {
	Reason       string
	Known, Shown []byte
}

// Error returns the reason.
func (m *Misbehaviour) Error() string { return m.Reason }

// Known is a tree that the log has vouched for before.
type Known struct {
	Name string // for people: where it is from
	Checkpoint
}

// Monitor checks that the log still has all that it had: every tree of known is the
// beginning of the one that it shows now. It then calls each with the entries from
// an index on, and returns the log's checkpoint.
//
// An error is a *Misbehaviour where the log forgot, forked, or does not show what it
// vouches for. Another one says nothing about the log.
func Monitor(ctx context.Context, source Source, log Log, known []Known, from int64, each func(Entry) error) (Checkpoint, error) {
	t, err := OpenTree(ctx, source, log)
	if err != nil {
		return Checkpoint{}, err
	}
	for _, k := range known {
		if err := t.extends(k); err != nil {
			return Checkpoint{}, t.shown(err)
		}
	}
	if _, err := t.Root(t.Checkpoint.Size); err != nil {
		return Checkpoint{}, t.shown(err)
	}
	if err := t.Entries(ctx, from, each); err != nil {
		return Checkpoint{}, t.shown(err)
	}
	return t.Checkpoint, nil
}

// extends checks that the tree begins with one that was known before.
func (t *Tree) extends(k Known) error {
	broken := func(format string, args ...any) error {
		return &Misbehaviour{fmt.Sprintf(format, args...), k.Note, t.Checkpoint.Note}
	}
	if k.Size > t.Checkpoint.Size {
		return broken("%s forgot: it had %d entries (%s), now %d", t.Log.Origin, k.Size, k.Name, t.Checkpoint.Size)
	}
	root, err := t.Root(k.Size)
	if err != nil {
		return err
	}
	if root != k.Root {
		return broken("%s forked: its first %d entries were of root %v (%s), and are of root %v now", t.Log.Origin, k.Size, k.Root, k.Name, root)
	}
	return nil
}

// shown makes a misbehaviour of a log's failure to show its tree; a log that could
// not be asked may be asked again.
func (t *Tree) shown(err error) error {
	if !errors.Is(err, errInconsistent) {
		return err
	}
	return &Misbehaviour{Reason: fmt.Sprintf("%s does not show what its checkpoint covers: %v", t.Log.Origin, err), Known: t.Checkpoint.Note}
}
