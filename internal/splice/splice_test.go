package splice_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/internal/splice"
)

// pair is a connection's two ends.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); other.Close() })
	return conn.(*net.TCPConn), other.(*net.TCPConn)
}

// What is sent on one end comes out at the other, what was read ahead included, and
// an end is handed on while the answer still comes.
func TestJoin(t *testing.T) {
	a, inA := pair(t)
	b, inB := pair(t)
	if _, err := io.WriteString(a, "first "); err != nil {
		t.Fatal(err)
	}
	ahead := bufio.NewReader(inA)
	if _, err := ahead.Peek(6); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); splice.Join(splice.Buffered(inA, ahead), inB) }()
	big := strings.Repeat("x", 1<<20)
	go func() { _, _ = io.WriteString(a, big); _ = a.CloseWrite() }()
	got, err := io.ReadAll(b)
	if err != nil || string(got) != "first "+big {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := io.WriteString(b, "answer"); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
		t.Errorf("%q, %v", got, err)
	}
	<-done
}

// Where one end breaks, the other is closed.
func TestJoinBroken(t *testing.T) {
	a, inA := pair(t)
	b, inB := pair(t)
	done := make(chan struct{})
	go func() { defer close(done); splice.Join(inA, inB) }()
	if err := a.SetLinger(0); err != nil { // a reset
		t.Fatal(err)
	}
	a.Close()
	if _, err := io.ReadAll(b); err != nil {
		t.Log(err) // a reset is as good as an end
	}
	<-done
}
