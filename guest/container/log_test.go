package container

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

func next(t *testing.T, r *Reader, want string, dropped uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	e, err := r.Next(ctx)
	if err != nil || string(e.Data) != want || e.Dropped != dropped {
		t.Fatalf("got %q, %d dropped, %v; want %q, %d dropped", e.Data, e.Dropped, err, want, dropped)
	}
}

func TestLog(t *testing.T) {
	l := NewLog(3 * (entryCost + 4))
	slow, quick := l.Oldest(), l.Oldest()
	for _, text := range []string{"one.", "two."} {
		l.Append(Stdout, []byte(text))
		next(t, quick, text, 0)
	}
	fresh := l.Newest()
	if e, ok := fresh.Kept(); ok {
		t.Errorf("new to a reader from now on: %q", e.Data)
	}
	for _, text := range []string{"thr.", "", "fou.", "fiv.", "six."} {
		l.Append(Stderr, []byte(text))
	}
	next(t, slow, "fou.", 12)
	next(t, slow, "fiv.", 0)
	next(t, quick, "fou.", 4)
	next(t, fresh, "fou.", 4)
	next(t, fresh, "fiv.", 0)
	next(t, fresh, "six.", 0)
	next(t, l.Oldest(), "fou.", 12)
	if _, ok := fresh.Kept(); ok {
		t.Error("an entry came twice")
	}

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fresh.Next(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that gave up: %v", err)
	}
	go l.Append(Stdout, []byte("late"))
	next(t, fresh, "late", 0)
	go l.End()
	if _, err := fresh.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	next(t, slow, "six.", 0) // what is kept outlives the end

	l.Append(Stdout, make([]byte, 1<<20)) // more than there is room for
	if l.size != 0 || len(l.entries) != 0 {
		t.Errorf("%d bytes in %d entries", l.size, len(l.entries))
	}
}
