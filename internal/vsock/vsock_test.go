package vsock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	want := Addr{3, 1}
	if got, err := Parse("vsock:3:1"); err != nil || got != want || got.Network() != "vsock" {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "3:1", "vsock:3", "vsock::1", "vsock:3:", "vsock:03:1", "vsock:3:1:", "vsock:4294967296:1", "vsock:-1:1"} {
		if got, err := Parse(s); err == nil || got != (Addr{}) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

// Few machines have a vsock that leads to themselves. Sockets of another family
// show what is the same for all.
func pair(t *testing.T) (net.Listener, unix.Sockaddr) {
	t.Helper()
	sa := &unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), "s")}
	l, err := listen(unix.AF_UNIX, sa, Addr{Any, 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, sa
}

func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		l, sa := pair(t)
		accepted := make(chan net.Conn, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- c
		}()
		a, err := dial(t.Context(), unix.AF_UNIX, sa, Addr{2, 1})
		if err != nil {
			return nil, nil, nil, err
		}
		b := <-accepted
		return a, b, func() { a.Close(); b.Close(); l.Close() }, nil
	})
}

func TestCloseWrite(t *testing.T) {
	l, sa := pair(t)
	a, err := dial(t.Context(), unix.AF_UNIX, sa, Addr{2, 1})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := io.WriteString(a, "all"); err != nil {
		t.Fatal(err)
	}
	if err := a.(*conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "all" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestListenerClosed(t *testing.T) {
	l, sa := pair(t)
	time.AfterFunc(10*time.Millisecond, func() { l.Close() })
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
	if c, err := dial(t.Context(), unix.AF_UNIX, sa, Addr{2, 1}); !errors.Is(err, unix.ECONNREFUSED) || c != nil {
		t.Errorf("%v, %v", c, err)
	}
}

// Where the kernel has vsock, its own sockets are made and given up.
func TestKernel(t *testing.T) {
	l, err := Listen(50555)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skip("this machine's kernel has no vsock")
	} else if err != nil {
		t.Fatal(err)
	}
	if l.Addr() != (Addr{Any, 50555}) {
		t.Errorf("listens at %v", l.Addr())
	}
	if other, err := Listen(50555); !errors.Is(err, unix.EADDRINUSE) || other != nil {
		t.Errorf("a second listener: %v, %v", other, err)
	}
	time.AfterFunc(10*time.Millisecond, func() { l.Close() })
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	// No machine has this identifier: refused at once, or no answer.
	if c, err := Dial(ctx, Addr{4000000000, 1}); err == nil || c != nil {
		t.Errorf("%v, %v", c, err)
	} else if os.IsTimeout(err) && ctx.Err() == nil {
		t.Errorf("%v before its time", err)
	}
}
