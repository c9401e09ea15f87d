package container

import (
	"context"
	"io"
	"sync"
	"time"
)

// Stream is where output comes from.
type Stream uint8

// The streams. A terminal's output is all Stdout.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// Entry is what a workload wrote at once.
type Entry struct {
	Time   time.Time
	Stream Stream
	Data   []byte // not to be changed
	// Dropped counts the bytes before this entry that the reader was too slow for.
	Dropped uint64
}

// entryCost is what an entry takes beside its data, in bytes.
const entryCost = 64

// Log is the last of what a workload wrote, in memory, and hands it to any number of
// readers. They share what is kept: one that does not read loses what is dropped
// meanwhile, costs nothing, and holds up no one.
type Log struct {
	mu      sync.Mutex
	max     int // bytes
	entries []Entry
	size    int           // bytes, with entryCost
	first   uint64        // number of entries[0]
	dropped uint64        // bytes of data before it
	ended   bool          // nothing more will come
	changed chan struct{} // closed by the next change
}

// NewLog returns a log that takes at most that many bytes of memory.
func NewLog(size int) *Log { return &Log{max: size, changed: make(chan struct{})} }

// Append adds a copy of data, and drops the oldest entries where there is no room.
func (l *Log) Append(from Stream, data []byte) {
	if len(data) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, Entry{Time: time.Now(), Stream: from, Data: append([]byte(nil), data...)})
	l.size += len(data) + entryCost
	for l.size > l.max {
		oldest := l.entries[0]
		l.entries[0] = Entry{} // append moves the rest to new memory at times
		l.entries = l.entries[1:]
		l.size -= len(oldest.Data) + entryCost
		l.dropped += uint64(len(oldest.Data))
		l.first++
	}
	l.change()
}

// End tells readers that nothing more will come.
func (l *Log) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.change()
}

func (l *Log) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Reader reads a log, for one goroutine.
type Reader struct {
	log     *Log
	next    uint64 // number of the entry
	dropped uint64 // the log's count when next was the first that is kept
}

// Oldest returns a reader from the oldest entry that is kept on. What was dropped
// before counts as dropped for it.
func (l *Log) Oldest() *Reader { return &Reader{log: l} }

// Newest returns a reader of what comes from now on.
func (l *Log) Newest() *Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &Reader{log: l, next: l.first + uint64(len(l.entries)), dropped: l.dropped}
	for _, e := range l.entries {
		r.dropped += uint64(len(e.Data))
	}
	return r
}

// Next returns the next entry and waits for it. It says io.EOF at the log's end.
func (r *Reader) Next(ctx context.Context) (Entry, error) {
	for {
		e, ok, ended, changed := r.take()
		switch {
		case ok:
			return e, nil
		case ended:
			return Entry{}, io.EOF
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Entry{}, context.Cause(ctx)
		}
	}
}

// Kept returns the next entry if there is one already.
func (r *Reader) Kept() (Entry, bool) {
	e, ok, _, _ := r.take()
	return e, ok
}

func (r *Reader) take() (e Entry, ok, ended bool, changed <-chan struct{}) {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost uint64
	if r.next < l.first {
		lost = l.dropped - r.dropped
		r.next, r.dropped = l.first, l.dropped
	}
	if r.next == l.first+uint64(len(l.entries)) {
		return Entry{}, false, l.ended, l.changed
	}
	e = l.entries[r.next-l.first]
	e.Dropped = lost
	r.next++
	r.dropped += uint64(len(e.Data))
	return e, true, false, nil
}
