package launcher

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// maxConsoleLog bounds console.log, in bytes: a hostile guest must not fill the
// host's disk.
const maxConsoleLog = 16 << 20

// console takes what a guest's firmware, kernel and agent write to ttyS0: as it
// is to a log of bounded size, and without terminal control to the user.
type console struct {
	log, user io.Writer
	written   atomic.Int64 // bytes of the guest's, the firmware's screen control aside
	logged    int64
	escape    escapeState
}

func (c *console) Write(p []byte) (int, error) {
	c.toLog(p)
	text := c.plain(p)
	c.written.Add(int64(len(text)))
	if len(text) > 0 {
		_, _ = c.user.Write(text) // the user's stream may be closed; the guest goes on
	}
	return len(p), nil
}

// CopyPlain copies a console's log without terminal control.
func CopyPlain(w io.Writer, log io.Reader) error {
	c := &console{}
	b := make([]byte, 32<<10)
	for {
		n, err := log.Read(b)
		if _, err := w.Write(c.plain(b[:n])); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *console) toLog(p []byte) {
	left := maxConsoleLog - c.logged
	if left <= 0 {
		return
	}
	if int64(len(p)) < left {
		_, _ = c.log.Write(p) // a full disk does not stop the guest
		c.logged += int64(len(p))
		return
	}
	_, _ = c.log.Write(p[:left])
	fmt.Fprintf(c.log, "\n[log ends: more than %d bytes]\n", maxConsoleLog)
	c.logged = maxConsoleLog
}

// escapeState is where in a terminal control sequence the stream stands.
// Source: ECMA-48, 5th edition, section 5.4.
type escapeState int

const (
	outside escapeState = iota
	afterEscape
	inSequence // after ESC [
)

// plain drops control sequences and control characters but for line feed and tab.
func (c *console) plain(p []byte) []byte {
	text := make([]byte, 0, len(p))
	for _, b := range p {
		switch c.escape {
		case afterEscape:
			if c.escape = outside; b == '[' {
				c.escape = inSequence
			}
			continue
		case inSequence:
			if b >= 0x40 && b <= 0x7e {
				c.escape = outside
			}
			continue
		}
		switch {
		case b == 0x1b:
			c.escape = afterEscape
		case b == '\n' || b == '\t' || b >= 0x20 && b < 0x7f:
			text = append(text, b)
		case b >= 0x80:
			text = append(text, '?') // C1 controls hide here, in any encoding
		}
	}
	return text
}
