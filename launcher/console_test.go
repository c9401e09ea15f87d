package launcher

import (
	"bytes"
	"strings"
	"testing"
)

func TestConsole(t *testing.T) {
	var log, user bytes.Buffer
	c := &console{log: &log, user: &user}
	// What the firmware prints before the kernel starts says nothing.
	const screen = "\x1b[2J\x1b[001;001H\x1b[=3h\x1b[8;056;240t"
	for _, b := range []byte(screen) { // in pieces, as a port gives them
		c.Write([]byte{b})
	}
	if c.written.Load() != 0 || user.Len() != 0 {
		t.Errorf("screen control counts as %d bytes, shown as %q", c.written.Load(), user.String())
	}
	c.Write([]byte("\x1b[31mhello\x1b[0m\r\n\x07\x9b2Jtab\there\n"))
	if got, want := user.String(), "hello\n?2Jtab\there\n"; got != want {
		t.Errorf("shown: %q, want %q", got, want)
	}
	if c.written.Load() != int64(user.Len()) {
		t.Errorf("%d bytes written, %d shown", c.written.Load(), user.Len())
	}
	if !strings.HasPrefix(log.String(), screen+"\x1b[31mhello") {
		t.Errorf("the log is not what the guest wrote: %q", log.String())
	}
}

func TestConsoleLogIsBounded(t *testing.T) {
	var log countingWriter
	c := &console{log: &log, user: &countingWriter{}}
	block := bytes.Repeat([]byte("x"), 1<<20)
	for range 20 {
		if n, err := c.Write(block); n != len(block) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if log.n < maxConsoleLog || log.n > maxConsoleLog+100 {
		t.Errorf("%d bytes logged, bound is %d", log.n, maxConsoleLog)
	}
}

type countingWriter struct{ n int }

func (w *countingWriter) Write(p []byte) (int, error) {
	w.n += len(p)
	return len(p), nil
}

func FuzzConsole(f *testing.F) {
	f.Add([]byte("\x1b[31mred\x1b[0m\n"))
	f.Add([]byte("\x1b\x1b[\x1b[2J"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var user bytes.Buffer
		c := &console{log: &countingWriter{}, user: &user}
		c.Write(data)
		for _, b := range user.Bytes() {
			if b != '\n' && b != '\t' && (b < 0x20 || b > 0x7e) {
				t.Fatalf("%q shows %#x", data, b)
			}
		}
	})
}
