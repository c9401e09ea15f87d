package cradle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal, and what was written to it.
func terminal(t *testing.T) (tty *os.File, written func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 120}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(&out, master) // until the terminal is closed, which is an error (EIO)
	}()
	return tty, func() string {
		tty.Close()
		<-done
		return out.String()
	}
}

func work(t *testing.T, p *progress, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.report("short of its total", 0, 10<<20)
		p.report("short of its total", 5<<20, 10<<20)
		p.report("without a total", 3<<20, 0)
		p.report("the last", 5<<20, 20<<20)
		p.close(err)
		p.close(err)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("still waiting for a bar")
	}
}

// TestProgress: bars on a terminal, which end whether they came to their totals
// or not, and nothing elsewhere.
func TestProgress(t *testing.T) {
	t.Setenv("TERM", "xterm")
	tty, written := terminal(t)
	work(t, newProgress(tty), nil)
	good := written()
	for _, want := range []string{"short of its total", "5.0 MiB / 5.0 MiB", "without a total", "3.0 MiB", "the last", "done"} {
		if !strings.Contains(good, want) {
			t.Errorf("no %q in %q", want, good)
		}
	}
	tty, written = terminal(t)
	work(t, newProgress(tty), errors.New("no"))
	if bad := written(); !strings.Contains(bad, "5.0 MiB / 20.0 MiB") {
		t.Errorf("work that failed looks as if it were done: %q", bad)
	}

	t.Setenv("TERM", "dumb")
	tty, written = terminal(t)
	work(t, newProgress(tty), nil)
	if got := written(); got != "" {
		t.Errorf("on a dumb terminal: %q", got)
	}
	var b bytes.Buffer
	work(t, newProgress(&b), nil)
	if b.Len() != 0 {
		t.Errorf("in a log: %q", b.String())
	}
}
