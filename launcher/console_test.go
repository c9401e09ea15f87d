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

// TestConsoleUnbooted: the firmware's last word is heard, in pieces and between
// control sequences; and not where others print it later.
func TestConsoleUnbooted(t *testing.T) {
	const said = "\x1b[2J\x1b[01;01HBdsDxe: No boot\x1b[mable option was found.\r\n"
	for _, tt := range []struct {
		text string
		want bool
	}{
		{said, true},
		{"BdsDxe: loading Boot0001\r\n" + said + said, true},
		{"BdsDxe: No bootable", false},
		{strings.Repeat("x", maxHead) + said, false},
		{strings.Repeat("x", maxHead-len(noBoot)) + said, true},
		{strings.Repeat("x", maxHead-len(noBoot)+1) + said, false},
	} {
		whole := &console{log: &countingWriter{}, user: &countingWriter{}, unbooted: make(chan struct{})}
		pieces := &console{log: &countingWriter{}, user: &countingWriter{}, unbooted: make(chan struct{})}
		whole.Write([]byte(tt.text))
		for _, b := range []byte(tt.text) {
			pieces.Write([]byte{b})
		}
		for name, c := range map[string]*console{"whole": whole, "in pieces": pieces} {
			got := false
			select {
			case <-c.unbooted:
				got = true
			default:
			}
			if got != tt.want {
				t.Errorf("%.40q, %s: %v, want %v", tt.text, name, got, tt.want)
			}
		}
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
