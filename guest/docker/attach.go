package docker

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/kraudcloud/kattest/guest/container"
)

// stdinPatience is how long a client waits for one that is about to leave.
const stdinPatience = 3 * time.Second

// attach joins a client with the workload's streams. The output is that of the log, so
// that no client holds it up; the input is one client's at a time.
func (s *Server) attach(c *call) error {
	process := s.engine.Workload()
	if process == nil {
		return ErrNotRunning
	}
	follow, stdin := c.flag("stream"), c.flag("stdin") && s.opensStdin()
	streams := map[container.Stream]bool{container.Stdout: c.flag("stdout"), container.Stderr: c.flag("stderr")}
	if stdin && follow {
		select {
		case s.stdin <- struct{}{}:
			defer func() { <-s.stdin }()
		case <-time.After(stdinPatience):
			return failure(http.StatusConflict, "another client is attached to the standard input")
		}
	}
	log := s.engine.Log().Newest()
	if c.flag("logs") {
		log = s.engine.Log().Oldest()
	}
	x, err := s.hijack(c, s.spec.Process.Terminal, c.r.FormValue("detachKeys"))
	if err != nil {
		return err
	}
	defer s.end(x)
	s.Notify(events.ActionAttach, nil)
	if follow {
		defer x.typing(process, stdin)()
	}
	for {
		e, ok := log.Kept()
		if !ok {
			if !follow {
				return nil
			}
			if e, err = log.Next(x.ctx); err != nil {
				break
			}
		}
		if streams[e.Stream] {
			x.write(e.Stream, e.Data)
		}
	}
	if context.Cause(x.ctx) == errDetached { //nolint:errorlint // it is not wrapped
		s.Notify(events.ActionDetach, nil)
	}
	return nil
}

// typing hands on the client's input beside the output. What it returns ends that,
// whatever the process reads.
func (x *stream) typing(process *container.Process, stdin bool) (stop func()) {
	to := io.Discard
	if stdin {
		to = process.Stdin
	}
	done := make(chan struct{})
	go func() { defer close(done); x.feed(open{to}) }()
	return func() {
		x.conn.Close()
		deadline, ok := to.(interface{ SetWriteDeadline(time.Time) error })
		if ok {
			_ = deadline.SetWriteDeadline(time.Unix(1, 0))
		}
		<-done
		if ok {
			_ = deadline.SetWriteDeadline(time.Time{}) // for the next client
		}
	}
}

// size reads a terminal's size, in characters.
func (c *call) size() (rows, columns uint16, err error) {
	h, err := strconv.ParseUint(c.r.FormValue("h"), 10, 16)
	if err != nil {
		return 0, 0, failure(http.StatusBadRequest, "h: %.40q is no number of rows", c.r.FormValue("h"))
	}
	w, err := strconv.ParseUint(c.r.FormValue("w"), 10, 16)
	if err != nil {
		return 0, 0, failure(http.StatusBadRequest, "w: %.40q is no number of columns", c.r.FormValue("w"))
	}
	return uint16(h), uint16(w), nil
}

// resize tells the workload's terminal its size.
func (s *Server) resize(c *call) error {
	rows, columns, err := c.size()
	if err != nil {
		return err
	}
	process := s.engine.Workload()
	if process == nil {
		return ErrNotRunning
	}
	if !s.spec.Process.Terminal {
		return failure(http.StatusBadRequest, "the container has no terminal")
	}
	return process.Resize(rows, columns)
}
