package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/port"
)

const nonblock = unix.O_NONBLOCK

// eventPatience is how long an event waits for the host to read.
const eventPatience = 5 * time.Second

// deadlined is a port: an *os.File that the runtime polls.
type deadlined interface {
	io.ReadWriter
	SetWriteDeadline(time.Time) error
	SetReadDeadline(time.Time) error
}

// control is the control port.
type control struct {
	mu   sync.Mutex
	port deadlined
	stop chan struct{} // holds one request to stop
}

func (a *agent) openControl(ctx context.Context) error {
	p, err := openPort(ctx, port.ControlPort)
	if err != nil {
		return err
	}
	a.control = &control{port: p, stop: make(chan struct{}, 1)}
	a.beside("control port", func() error { a.control.listen(a.log); return nil })
	return a.control.send(port.Event{Name: port.EventAgent})
}

// send writes one event.
func (c *control) send(e port.Event) error {
	e.Uptime = uptime().Microseconds()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(line) >= port.MaxLine {
		return fmt.Errorf("event %s: %d bytes, more than %d", e.Name, len(line)+1, port.MaxLine)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.port.SetWriteDeadline(time.Now().Add(eventPatience)); err != nil {
		return fmt.Errorf("event %s: %w", e.Name, err)
	}
	if _, err := c.port.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("event %s: %w", e.Name, err)
	}
	return nil
}

// reconnect is the pause before a port is read again that the host left.
const reconnect = 100 * time.Millisecond

// maxComplaints bounds what is logged of a host that talks nonsense.
const maxComplaints = 8

// listen reads the host's lines for good. Nothing but "stop" means anything,
// and memory is bounded by one line whatever the host sends.
func (c *control) listen(log *slog.Logger) {
	lines := bufio.NewReaderSize(c.port, port.MaxLine)
	complaints := 0
	for {
		line, err := readLine(lines)
		switch {
		case err == nil && line == port.CommandStop:
			select {
			case c.stop <- struct{}{}:
			default: // it was asked for already
			}
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
			if complaints++; complaints <= maxComplaints {
				log.Warn("the host sent a line that is no command", "line", truncate(line, 40))
			}
		case errors.Is(err, io.EOF): // the host is not there, or not any more
			time.Sleep(reconnect)
		default:
			log.Error("reading the control port: the host can no longer stop the guest", "error", err)
			return
		}
	}
}

// readLine returns a line without its line feed. Of a line that is too long it
// returns the beginning, with bufio.ErrBufferFull.
func readLine(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	if err == nil {
		return string(b[:len(b)-1]), nil
	}
	line := string(b)
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	if err != nil {
		return line, err
	}
	return line, bufio.ErrBufferFull
}
