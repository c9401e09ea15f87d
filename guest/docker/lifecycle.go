package docker

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
)

// stopGrace is docker's time between the stop signal and SIGKILL.
const stopGrace = 10 * time.Second

// forever is longer than any guest runs.
const forever = 1 << 62

// stop ends the workload for good, and waits for that.
func (s *Server) stop(c *call) error {
	grace := stopGrace
	if n := s.spec.Process.StopTimeout; n != 0 {
		grace = time.Duration(n) * time.Second
	}
	seconds, err := c.integer("t", int(grace/time.Second))
	if err != nil {
		return err
	}
	var signal unix.Signal
	if name := c.r.FormValue("signal"); name != "" {
		if signal, err = parseSignal(name); err != nil {
			return err
		}
	}
	state, _ := s.engine.State()
	if !state.Running {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	switch grace = time.Duration(seconds) * time.Second; {
	case seconds < 0:
		grace = forever
	case seconds > 1<<31:
		return failure(http.StatusBadRequest, "t: %d is too many seconds", seconds)
	}
	s.Notify(events.ActionStop, nil)
	s.engine.Stop(signal, grace)
	if !s.until(c, func(now State) bool { return now.Over }) {
		return failure(http.StatusServiceUnavailable, "the guest ends")
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// parseSignal reads a signal as docker's clients write them: SIGTERM, term, 15.
func parseSignal(name string) (unix.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil {
		if n < 1 || n > 64 {
			return 0, failure(http.StatusBadRequest, "invalid signal: %d", n)
		}
		return unix.Signal(n), nil
	}
	signal, err := container.ParseSignal("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if err != nil {
		return 0, failure(http.StatusBadRequest, "invalid signal: %.40s", name)
	}
	return signal, nil
}

// kill sends the workload a signal.
func (s *Server) kill(c *call) error {
	signal := unix.SIGKILL
	if name := c.r.FormValue("signal"); name != "" {
		var err error
		if signal, err = parseSignal(name); err != nil {
			return err
		}
	}
	if err := s.engine.Signal(signal); err != nil {
		return err
	}
	s.Notify(events.ActionKill, map[string]string{"signal": strconv.Itoa(int(signal))})
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// wait answers with the exit status of a run.
func (s *Server) wait(c *call) error {
	begin, _ := s.engine.State()
	var done func(State) bool
	switch condition := api.WaitCondition(c.r.FormValue("condition")); condition {
	case "", api.WaitConditionNotRunning:
		done = func(now State) bool { return !now.Running }
	case api.WaitConditionNextExit:
		done = func(now State) bool { return now.Exits > begin.Exits }
	case api.WaitConditionRemoved: // with the guest
		done = func(now State) bool { return now.Over }
	default:
		return failure(http.StatusBadRequest, "invalid condition: %.40q", condition)
	}
	// Clients wait for the head before they do what makes the container end.
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(c.w).Flush(); err != nil {
		return nil //nolint:nilerr // the client is gone
	}
	if s.until(c, done) {
		now, _ := s.engine.State()
		_ = json.NewEncoder(c.w).Encode(api.WaitResponse{StatusCode: int64(now.Exit)})
	}
	return nil
}

// until waits for a state, and says false if the client is gone before.
func (s *Server) until(c *call, done func(State) bool) bool {
	for {
		state, changed := s.engine.State()
		if done(state) {
			return true
		}
		select {
		case <-changed:
		case <-c.r.Context().Done():
			return false
		}
	}
}

// maxEvents bounds the memory of what has happened, in bytes.
const maxEvents = 64 << 10

// Notify notes what has happened to the container, for who asks for events.
func (s *Server) Notify(action events.Action, attributes map[string]string) {
	now := time.Now()
	m := events.Message{
		Type: events.ContainerEventType, Action: action, Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
		Actor: events.Actor{ID: s.id, Attributes: map[string]string{"name": s.name, "image": s.image()}},
	}
	for name, value := range attributes {
		m.Actor.Attributes[name] = value
	}
	line, err := json.Marshal(m)
	if err != nil {
		return // strings and numbers do not fail
	}
	s.events.Append(container.Stdout, append(line, '\n'))
}

// follow sends what happens, and what has happened since a time if one is given.
func (s *Server) follow(c *call) error {
	filters, err := c.filters("type", "event", "container", "image", "scope")
	if err != nil {
		return err
	}
	since, err := c.time("since")
	if err != nil {
		return err
	}
	until, err := c.time("until")
	if err != nil {
		return err
	}
	log := s.events.Newest()
	if !since.IsZero() {
		log = s.events.Oldest()
	}
	var over <-chan time.Time
	if !until.IsZero() {
		over = time.After(time.Until(until))
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	ctx, cancel := s.streaming(c, over)
	defer cancel()
	for {
		if http.NewResponseController(c.w).Flush() != nil {
			return nil
		}
		e, err := log.Next(ctx)
		if err != nil {
			return nil //nolint:nilerr // the client, the time or the guest is at its end
		}
		if e.Time.Before(since) || !s.told(e.Data, filters) {
			continue
		}
		if _, err := c.w.Write(e.Data); err != nil {
			return nil //nolint:nilerr // the client is gone
		}
	}
}

// told says whether an event passes the filters.
func (s *Server) told(line []byte, filters map[string]map[string]bool) bool {
	var m events.Message
	if err := json.Unmarshal(line, &m); err != nil {
		return false
	}
	fits := func(name, value string) bool {
		switch name {
		case "type":
			return value == string(m.Type)
		case "event": // "exec_start: ls" is an exec_start
			return value == string(m.Action) || strings.HasPrefix(string(m.Action), value+": ")
		case "container":
			return s.named(value)
		case "image":
			return value == m.Actor.Attributes["image"]
		}
		return value == m.Scope
	}
	for name, values := range filters {
		found := len(values) == 0
		for value := range values {
			found = found || fits(name, value)
		}
		if !found {
			return false
		}
	}
	return true
}
