package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/moby/term"

	"github.com/kraudcloud/kattest/guest/container"
)

// detachKeys are docker's: who types them at a terminal leaves it as it is.
const detachKeys = "ctrl-p,ctrl-q"

// streamBuffer is how much is copied at a time, in bytes.
const streamBuffer = 32 << 10

// streaming is a context that ends with the client, the server, or that channel.
func (s *Server) streaming(c *call, over <-chan time.Time) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.r.Context())
	stop := context.AfterFunc(s.ctx, cancel)
	if over != nil {
		go func() {
			select {
			case <-over:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() { stop(); cancel() }
}

// A stream is a connection that a client has for the streams of one process.
type stream struct {
	conn     net.Conn
	input    io.Reader
	terminal bool
	mu       sync.Mutex
	out      frames

	ctx  context.Context //nolint:containedctx // ends when the client is gone, or detaches
	gone context.CancelCauseFunc
}

// Why a stream ends before its process.
var (
	errDetached = errors.New("the client detached")
	errGone     = errors.New("the client is gone")
)

// hijack makes the request's connection a stream.
func (s *Server) hijack(c *call, terminal bool, keys string) (*stream, error) {
	if keys == "" {
		keys = detachKeys
	}
	escape, err := term.ToBytes(keys)
	if err != nil {
		return nil, failure(http.StatusBadRequest, "detachKeys: %v", err)
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nApi-Version: 1.%d\r\n\r\n"
	if c.r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nApi-Version: 1.%d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	}
	conn, buffered, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return nil, err
	}
	x := &stream{conn: conn, input: behind(buffered.Reader, conn), terminal: terminal, out: frames{w: conn, terminal: terminal}}
	if terminal {
		x.input = term.NewEscapeProxy(x.input, escape)
	}
	x.ctx, x.gone = context.WithCancelCause(context.Background())
	s.streams.Add(1)
	err = conn.SetDeadline(time.Time{})
	if err == nil {
		_, err = fmt.Fprintf(conn, head, c.streamType(terminal), newestMinor)
	}
	if err != nil {
		x.gone(errGone)
	}
	return x, nil
}

// behind reads what is buffered, and then the connection.
func behind(r *bufio.Reader, conn net.Conn) io.Reader {
	return io.MultiReader(io.LimitReader(r, int64(r.Buffered())), conn)
}

// end ends the stream.
func (s *Server) end(x *stream) {
	x.gone(nil)
	x.conn.Close()
	s.streams.Done()
}

// feed hands what the client types to the process, until one of them ends, and closes
// that. An end of the client's input need not be its own: see closing.
func (x *stream) feed(to io.WriteCloser) {
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, x.input, make([]byte, streamBuffer))
	to.Close()
	switch {
	case errors.As(err, new(term.EscapeError)):
		x.gone(errDetached)
	case err == nil:
		x.await()
	}
}

// open is a writer that stays open for others.
type open struct{ io.Writer }

// Close does nothing.
func (open) Close() error { return nil }

// closing is a connection that can tell that its other end is closed, where reading
// tells only that nothing more comes.
type closing interface{ AwaitClose() }

func (x *stream) await() {
	if conn, ok := x.conn.(*known).Conn.(closing); ok {
		conn.AwaitClose()
		x.gone(errGone)
	}
}

// write sends output. A client that does not take it is gone.
func (x *stream) write(from container.Stream, data []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ctx.Err() != nil {
		return
	}
	if err := x.out.write(from, data); err != nil {
		x.gone(errGone)
	}
}
