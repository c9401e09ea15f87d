package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kraudcloud/kattest/guest/container"
)

// Media types of streams. Source: Docker Engine API 1.42, "Attach to a container".
const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// streamType is the media type of a container's output.
func (c *call) streamType(terminal bool) string {
	if terminal || c.minor < 42 {
		return rawStream
	}
	return multiplexedStream
}

// frames writes output: as it is where a terminal made it, and else in frames of one
// byte of stream, three zeros, the length in four bytes big-endian, and the data.
// Source: Docker Engine API, "Attach to a container", Stream format.
type frames struct {
	w        io.Writer
	terminal bool
	buffer   []byte
}

func (f *frames) write(stream container.Stream, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if f.terminal {
		_, err := f.w.Write(data)
		return err
	}
	f.buffer = append(f.buffer[:0], byte(stream), 0, 0, 0)
	f.buffer = binary.BigEndian.AppendUint32(f.buffer, uint32(len(data)))
	f.buffer = append(f.buffer, data...)
	_, err := f.w.Write(f.buffer)
	return err
}

// selection is what of the log a client wants.
type selection struct {
	streams      map[container.Stream]bool
	since, until time.Time // zero is none
	tail         int       // lines; -1 is all
	timestamps   bool
	follow       bool
}

func (c *call) selection() (selection, error) {
	s := selection{
		streams:    map[container.Stream]bool{container.Stdout: c.flag("stdout"), container.Stderr: c.flag("stderr")},
		timestamps: c.flag("timestamps"), follow: c.flag("follow"), tail: -1,
	}
	if !s.streams[container.Stdout] && !s.streams[container.Stderr] {
		return selection{}, failure(http.StatusBadRequest, "Bad parameters: you must choose at least one stream")
	}
	var err error
	if s.since, err = c.time("since"); err != nil {
		return selection{}, err
	}
	if s.until, err = c.time("until"); err != nil {
		return selection{}, err
	}
	if text := c.r.FormValue("tail"); text != "" && text != "all" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return selection{}, failure(http.StatusBadRequest, "tail: %.40q is neither a number nor \"all\"", text)
		}
		s.tail = n
	}
	return s, nil
}

// time reads a parameter of seconds since 1970, with decimals; zero is none.
func (c *call) time(name string) (time.Time, error) {
	text := c.r.FormValue(name)
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	var nanoseconds int64
	if err == nil && fraction != "" {
		nanoseconds, err = strconv.ParseInt((fraction + "000000000")[:max(9, len(fraction))], 10, 64)
	}
	if err != nil || len(fraction) > 9 || nanoseconds < 0 {
		return time.Time{}, failure(http.StatusBadRequest, "%s: %.40q is not a time in seconds", name, text)
	}
	return time.Unix(seconds, nanoseconds), nil
}

// logs sends the workload's output, and goes on with it if that is wanted.
func (s *Server) logs(c *call) error {
	want, err := c.selection()
	if err != nil {
		return err
	}
	terminal := s.spec.Process.Terminal
	c.w.Header().Set("Content-Type", c.streamType(terminal))
	c.w.WriteHeader(http.StatusOK)
	w := &logWriter{selection: want, out: &frames{w: c.w, terminal: terminal}, within: map[container.Stream]bool{}}
	ctx := c.r.Context()
	if want.follow && !want.until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, want.until)
		defer cancel()
	}
	// What fails from here on is that the client is gone, or the time is over.
	_ = w.send(ctx, s.engine.Log().Oldest(), http.NewResponseController(c.w).Flush)
	return nil
}

// logWriter writes what is wanted of a log.
type logWriter struct {
	selection
	out    *frames
	within map[container.Stream]bool // a line that has begun
	line   []byte
}

// send writes what there is of the log, and what comes if that is wanted.
func (w *logWriter) send(ctx context.Context, log *container.Reader, flush func() error) error {
	var old []container.Entry
	for e, ok := log.Kept(); ok; e, ok = log.Kept() {
		if w.wants(e) {
			e.Dropped = 0 // before what is kept: nobody was too slow for that
			old = append(old, e)
		}
	}
	for _, e := range lastLines(old, w.tail) {
		if err := w.entry(e); err != nil {
			return err
		}
	}
	if err := flush(); err != nil || !w.follow {
		return err
	}
	for {
		e, ok := log.Kept()
		if !ok {
			if err := flush(); err != nil {
				return err
			}
			var err error
			if e, err = log.Next(ctx); err != nil {
				return err
			}
		}
		if err := w.lost(e.Dropped); err != nil {
			return err
		}
		if w.wants(e) {
			if err := w.entry(e); err != nil {
				return err
			}
		}
	}
}

// lost says in the output itself that the client was too slow.
func (w *logWriter) lost(bytes uint64) error {
	if bytes == 0 {
		return nil
	}
	return w.out.write(container.Stderr, []byte("\n["+strconv.FormatUint(bytes, 10)+" bytes of output were dropped: this reader was too slow]\n"))
}

func (w *logWriter) wants(e container.Entry) bool {
	return w.streams[e.Stream] && !e.Time.Before(w.since) && (w.until.IsZero() || !e.Time.After(w.until))
}

// entry writes one piece of output, with its time before each line if that is wanted.
func (w *logWriter) entry(e container.Entry) error {
	if !w.timestamps {
		return w.out.write(e.Stream, e.Data)
	}
	w.line = w.line[:0]
	for line := range bytes.Lines(e.Data) {
		if !w.within[e.Stream] {
			w.line = e.Time.UTC().AppendFormat(w.line, "2006-01-02T15:04:05.000000000Z07:00 ")
		}
		w.line = append(w.line, line...)
		w.within[e.Stream] = !bytes.HasSuffix(line, []byte("\n"))
	}
	return w.out.write(e.Stream, w.line)
}

// lastLines returns what belongs to the n last lines; all where n is negative. Lines of
// the two streams may stand between pieces of each other.
func lastLines(all []container.Entry, n int) []container.Entry {
	if n < 0 {
		return all
	}
	var last []container.Entry
	begun, complete := map[container.Stream]bool{}, map[container.Stream]bool{} // seen from the end
	for _, e := range slices.Backward(all) {
		if complete[e.Stream] {
			continue
		}
		begin := 0
		for end := len(e.Data); end > 0; end = bytes.LastIndexByte(e.Data[:end-1], '\n') + 1 {
			if e.Data[end-1] == '\n' || !begun[e.Stream] { // else it goes on in what follows
				if n == 0 {
					begin, complete[e.Stream] = end, true
					break
				}
				n--
				begun[e.Stream] = true
			}
		}
		if e.Data = e.Data[begin:]; len(e.Data) > 0 {
			last = append(last, e)
		}
	}
	slices.Reverse(last)
	return last
}
