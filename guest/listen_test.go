package guest

import (
	"errors"
	"io"
	"net"
	"testing"
)

func TestJoined(t *testing.T) {
	var all []net.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	j := newJoined(all...)
	if j.Addr() != all[0].Addr() {
		t.Errorf("at %v", j.Addr())
	}
	for _, l := range all {
		out, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := j.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(in, "hello"); err != nil {
			t.Fatal(err)
		}
		in.Close()
		if got, err := io.ReadAll(out); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		out.Close()
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	for range 3 {
		if conn, err := j.Accept(); !errors.Is(err, net.ErrClosed) || conn != nil {
			t.Errorf("%v, %v, want %v", conn, err, net.ErrClosed)
		}
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
