// Package splice joins two connections, whoever is at their ends. It bounds no time:
// a connection is as long as its ends want.
package splice

import (
	"bufio"
	"io"
	"net"
	"sync"
)

// Join copies both ways until both have ended, and closes both. An end of one is
// handed on to the other, whose answer may still come; a failure ends both.
func Join(a, b net.Conn) {
	defer a.Close()
	defer b.Close()
	var done sync.WaitGroup
	half := func(to, from net.Conn) {
		if _, err := io.Copy(to, from); err != nil {
			a.Close()
			b.Close()
			return
		}
		if c, ok := to.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite() // it may be gone
		}
	}
	done.Go(func() { half(a, b) })
	half(b, a)
	done.Wait()
}

// Buffered returns the connection behind what r has read of it already.
func Buffered(conn net.Conn, r *bufio.Reader) net.Conn { return &buffered{conn, r} }

type buffered struct {
	net.Conn
	r *bufio.Reader
}

// Read reads what is buffered first.
func (b *buffered) Read(p []byte) (int, error) {
	if b.r.Buffered() > 0 {
		return b.r.Read(p)
	}
	return b.Conn.Read(p)
}

// CloseWrite says that nothing more comes, where the connection can say that.
func (b *buffered) CloseWrite() error {
	if c, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
