package launcher

import (
	"bytes"
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
	head      []byte        // the first maxHead bytes of text
	unbooted  chan struct{} // closed when the firmware says that it boots nothing; nil where nobody asks
}

// noBoot is the firmware's last word where it boots nothing; an endless loop follows.
// Source: edk2 2025.02, PlatformBootManagerUnableToBoot in
// OvmfPkg/Library/PlatformBootManagerLib/BdsPlatform.c.
const noBoot = "BdsDxe: No bootable option"

// maxHead bounds where noBoot is looked for, in bytes: the firmware is the first to
// print anything.
const maxHead = 4 << 10

func (c *console) Write(p []byte) (int, error) {
	c.toLog(p)
	text := c.plain(p)
	c.written.Add(int64(len(text)))
	c.look(text)
	if len(text) > 0 {
		_, _ = c.user.Write(text) // the user's stream may be closed; the guest goes on
	}
	return len(p), nil
}

// look closes unbooted, once.
func (c *console) look(text []byte) {
	if c.unbooted == nil || len(c.head) == maxHead {
		return
	}
	c.head = append(c.head, text[:min(len(text), maxHead-len(c.head))]...)
	if bytes.Contains(c.head, []byte(noBoot)) {
		close(c.unbooted)
		c.head = make([]byte, maxHead) // it is not looked for again
	}
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
