package launcher

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/strictjson"
)

// Event is a guest's event and when it reached the launcher.
type Event struct {
	port.Event
	// Since is the time since QEMU was started, by the host's monotonic clock.
	Since time.Duration
}

// maxEvents bounds what a guest may say in its life but for its health. An honest one
// says four things.
const maxEvents = 64

// parseEvent reads one control line, without its line feed.
func parseEvent(line []byte) (port.Event, error) {
	if len(line) >= port.MaxLine {
		return port.Event{}, fmt.Errorf("control port: a line of more than %d bytes", port.MaxLine)
	}
	var e port.Event
	if err := strictjson.Decode(line, &e); err != nil {
		return port.Event{}, fmt.Errorf("control port: %w", err)
	}
	if err := checkEvent(e); err != nil {
		return port.Event{}, fmt.Errorf("control port: %w", err)
	}
	return e, nil
}

func checkEvent(e port.Event) error {
	switch e.Name {
	case port.EventAgent, port.EventServing, port.EventStarted, port.EventExit, port.EventRefused:
	case port.EventHealth:
		if _, err := port.ParseHealth(string(e.Health)); err != nil {
			return fmt.Errorf("health: %w", err)
		}
	default:
		return fmt.Errorf("name: unknown event %.40q", e.Name)
	}
	switch {
	case e.Uptime < 0:
		return fmt.Errorf("uptime: %d", e.Uptime)
	case e.Exit < 0 || e.Exit > 255:
		return fmt.Errorf("exit: %d is not between 0 and 255", e.Exit)
	case e.Exit != 0 && e.Name != port.EventExit:
		return fmt.Errorf("exit: %d with event %q", e.Exit, e.Name)
	case e.Health != "" && e.Name != port.EventHealth:
		return fmt.Errorf("health: with event %q", e.Name)
	case e.Reason != "" && e.Name != port.EventRefused:
		return fmt.Errorf("reason: with event %q", e.Name)
	}
	return nil
}

// readEvents reads control lines until r ends. The guest may be hostile: the
// first line that is not an event, a line that is too long and an event too
// many end it with an error.
func readEvents(r io.Reader, start time.Time, handle func(Event)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, port.MaxLine), port.MaxLine)
	for n := 0; lines.Scan(); {
		e, err := parseEvent(lines.Bytes())
		if err != nil {
			return err
		}
		if e.Name != port.EventHealth {
			if n++; n > maxEvents {
				return fmt.Errorf("control port: more than %d events", maxEvents)
			}
		}
		handle(Event{Event: e, Since: time.Since(start)})
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("control port: a line of more than %d bytes", port.MaxLine)
	} else if err != nil && !closed(err) {
		return fmt.Errorf("control port: %w", err)
	}
	return nil
}

// printable returns what a guest says in a form that a terminal cannot take
// for a command.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
