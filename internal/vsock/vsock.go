// Package vsock has connections between a guest and its host that are of no
// network: AF_VSOCK, for which the standard library has no addresses.
//
// The host is at the other end, or between: what comes is as untrusted as what
// comes over a network.
package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Addr is an address: a context identifier, which is a machine's, and a port.
type Addr struct{ CID, Port uint32 }

// Any is every context identifier of this machine's, to listen at.
const Any = unix.VMADDR_CID_ANY

// Prefix is before an address of this package where others may stand as well.
const Prefix = "vsock:"

// Network returns "vsock".
func (Addr) Network() string { return "vsock" }

// String returns vsock:CID:PORT.
func (a Addr) String() string { return fmt.Sprintf("%s%d:%d", Prefix, a.CID, a.Port) }

// Parse reads vsock:CID:PORT.
func Parse(s string) (Addr, error) {
	rest, ok := strings.CutPrefix(s, Prefix)
	cid, port, ok2 := strings.Cut(rest, ":")
	c, err := strconv.ParseUint(cid, 10, 32)
	p, err2 := strconv.ParseUint(port, 10, 32)
	a := Addr{uint32(c), uint32(p)}
	if !ok || !ok2 || err != nil || err2 != nil || a.String() != s {
		return Addr{}, fmt.Errorf("%q is not vsock:CID:PORT", s)
	}
	return a, nil
}

// Listen listens at a port of this machine's.
func Listen(port uint32) (net.Listener, error) {
	return listen(unix.AF_VSOCK, &unix.SockaddrVM{CID: Any, Port: port}, Addr{Any, port})
}

// Dial connects to a.
func Dial(ctx context.Context, a Addr) (net.Conn, error) {
	return dial(ctx, unix.AF_VSOCK, &unix.SockaddrVM{CID: a.CID, Port: a.Port}, a)
}

// socket is one that the runtime's poller waits for.
func socket(family int, name string) (*os.File, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// control calls f with the file's descriptor.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

type listener struct {
	file *os.File
	addr Addr
}

func listen(family int, sa unix.Sockaddr, addr Addr) (net.Listener, error) {
	file, err := socket(family, addr.String())
	if err != nil {
		return nil, err
	}
	err = control(file, func(fd int) error {
		if err := unix.Bind(fd, sa); err != nil {
			return err
		}
		return unix.Listen(fd, unix.SOMAXCONN)
	})
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("listening at %s: %w", addr, err)
	}
	return &listener{file, addr}, nil
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var from unix.Sockaddr
	var inner error
	err = raw.Read(func(at uintptr) bool {
		fd, from, inner = unix.Accept4(int(at), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return !errors.Is(inner, unix.EAGAIN)
	})
	if err != nil { // of the poller, as there is no deadline
		return nil, net.ErrClosed
	}
	if inner != nil {
		return nil, fmt.Errorf("accepting at %s: %w", l.addr, inner)
	}
	remote := Addr{}
	if vm, ok := from.(*unix.SockaddrVM); ok {
		remote = Addr{vm.CID, vm.Port}
	}
	return &conn{os.NewFile(uintptr(fd), remote.String()), l.addr, remote}, nil
}

// Close ends the waiting of Accept.
func (l *listener) Close() error { return l.file.Close() }

// Addr is where it listens.
func (l *listener) Addr() net.Addr { return l.addr }

func dial(ctx context.Context, family int, sa unix.Sockaddr, to Addr) (net.Conn, error) {
	file, err := socket(family, to.String())
	if err != nil {
		return nil, err
	}
	if err := connect(ctx, file, sa); err != nil {
		file.Close()
		return nil, fmt.Errorf("connecting to %s: %w", to, err)
	}
	return &conn{file, Addr{}, to}, nil
}

// connect waits until the connection is there, or ctx ends.
func connect(ctx context.Context, file *os.File, sa unix.Sockaddr) error {
	err := control(file, func(fd int) error { return unix.Connect(fd, sa) })
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var state int
	var inner error
	first := true
	err = raw.Write(func(fd uintptr) bool {
		if first { // the poller waits before it calls again
			first = false
			return false
		}
		state, inner = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		return true
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := errors.Join(err, inner); err != nil {
		return err
	}
	if state != 0 {
		return unix.Errno(state)
	}
	return nil
}

// conn is a connection: a file has what it needs, but for the form of errors.
type conn struct {
	file          *os.File
	local, remote Addr
}

// Read reads.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	return n, c.wrap("read", err)
}

// Write writes.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	return n, c.wrap("write", err)
}

// wrap makes err one of package net's, of which callers ask whether it was a
// time-out.
func (c *conn) wrap(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: Addr{}.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// Close closes the connection.
func (c *conn) Close() error { return c.file.Close() }

// SetDeadline bounds reading and writing.
func (c *conn) SetDeadline(t time.Time) error { return c.file.SetDeadline(t) }

// SetReadDeadline bounds reading.
func (c *conn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline bounds writing.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }

// LocalAddr is where the connection came in, and zero for who opened it.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// CloseWrite tells the other end that no more comes.
func (c *conn) CloseWrite() error {
	return control(c.file, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}
