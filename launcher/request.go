package launcher

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/kraudcloud/kattest/internal/strictjson"
)

// launcherSocket is where a launcher takes requests: who may write to the VM's
// folder may make them. No signal is sent, so none reaches a process that got a
// launcher's number.
const launcherSocket = "run/launcher.sock"

// maxRequest bounds a request, in bytes.
const maxRequest = 4096

// request is one line of JSON that a launcher is sent.
type request struct {
	Command string `json:"command"` // commandStop or commandKill
	// TimeoutMS bounds the time from a stop to the end, in milliseconds; 0 is
	// the launcher's own.
	TimeoutMS int64 `json:"timeoutMS,omitempty"`
}

const (
	commandStop = "stop" // ask the agent to stop the container
	commandKill = "kill" // end the guest at once
)

// requests are what a launcher is asked. Each connection stays open until the
// launcher has left the folder.
type requests struct {
	listener net.Listener
	ch       chan request

	mu    sync.Mutex
	conns []net.Conn
}

func listen(folder *os.File) (*requests, error) {
	l, err := net.Listen("unix", socketPath(folder, launcherSocket))
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its name is gone by then
	r := &requests{listener: l, ch: make(chan request, 16)}
	go r.accept()
	return r, nil
}

func (r *requests) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns = append(r.conns, conn)
		r.mu.Unlock()
		go r.read(conn)
	}
}

// read takes one request. What is wrong is answered and dropped.
func (r *requests) read(conn net.Conn) {
	line, err := bufio.NewReader(io.LimitReader(conn, maxRequest)).ReadBytes('\n')
	if err != nil {
		return
	}
	q, err := parseRequest(line)
	if err != nil {
		fmt.Fprintf(conn, "%v\n", err)
		return
	}
	select {
	case r.ch <- q:
	default: // 16 are waiting: it is ending
	}
}

func parseRequest(line []byte) (request, error) {
	var q request
	if err := strictjson.Decode(line, &q); err != nil {
		return request{}, fmt.Errorf("request: %w", err)
	}
	if q.Command != commandStop && q.Command != commandKill {
		return request{}, fmt.Errorf("request: command: unknown command %.40q", q.Command)
	}
	if q.TimeoutMS < 0 || q.TimeoutMS > time.Hour.Milliseconds()*24*365 {
		return request{}, fmt.Errorf("request: timeoutMS: %d", q.TimeoutMS)
	}
	return q, nil
}

func (r *requests) close() {
	r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
}

// ErrNotRunning says that no launcher has the folder.
var ErrNotRunning = errors.New("the guest is not running")

// Stop asks the agent of the guest in dir to stop its container, and waits for
// the end of its launcher. After timeout, where it is not zero, the guest is
// ended at once.
func Stop(ctx context.Context, dir string, timeout time.Duration) error {
	return ask(ctx, dir, request{Command: commandStop, TimeoutMS: max(timeout.Milliseconds(), 0)})
}

// Kill ends the guest in dir at once, and waits for the end of its launcher.
func Kill(ctx context.Context, dir string) error {
	return ask(ctx, dir, request{Command: commandKill})
}

// ask sends q to the launcher that has dir, and waits until it has none.
func ask(ctx context.Context, dir string, q request) error {
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if held, err := locked(root); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	} else if !held {
		return fmt.Errorf("%s: %w", dir, ErrNotRunning)
	}
	conn, err := dialLauncher(ctx, root)
	if err != nil {
		return fmt.Errorf("%s: asking its launcher: %w", dir, err)
	}
	if conn == nil {
		return nil // it ended meanwhile
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	line, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil && !closed(err) {
		return fmt.Errorf("%s: asking its launcher: %w", dir, err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxRequest)) // until it ends
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !closed(err):
		return fmt.Errorf("%s: waiting for its launcher: %w", dir, err)
	case len(answer) > 0:
		return fmt.Errorf("%s: its launcher says: %s", dir, printable(string(answer)))
	}
	return waitUnlocked(ctx, root)
}

// dialLauncher connects to the launcher, which may still be about to listen. It
// returns nil where the launcher is gone.
func dialLauncher(ctx context.Context, root *os.Root) (net.Conn, error) {
	file, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for {
		conn, err := net.Dial("unix", socketPath(file, launcherSocket))
		if err == nil {
			return conn, nil
		}
		if held, lockErr := locked(root); lockErr != nil || !held {
			return nil, lockErr
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// waitUnlocked waits for the last moments of a launcher that was killed.
func waitUnlocked(ctx context.Context, root *os.Root) error {
	for {
		held, err := locked(root)
		if err != nil || !held {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}
