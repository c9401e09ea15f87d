package probe

import (
	"bytes"
	"strings"
	"sync"
)

// consoleSize is how much of what a guest prints is kept, in bytes.
const consoleSize = 16 << 10

// console is the guest's serial port.
type console struct {
	seen chan struct{} // closed when the token is printed

	mu    sync.Mutex
	token []byte
	b     []byte // the last consoleSize bytes
	found bool
}

func newConsole(token string) *console {
	return &console{seen: make(chan struct{}), token: []byte(token)}
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.b = append(c.b, p...)
	if !c.found && bytes.Contains(c.b, c.token) {
		c.found = true
		close(c.seen)
	}
	if over := len(c.b) - consoleSize; over > 0 {
		c.b = append(c.b[:0], c.b[over:]...)
	}
	return len(p), nil
}

// maxLine bounds what lastLine returns, in bytes.
const maxLine = 200

// lastLine returns the last line of printable text beside the token. The guest
// may be hostile: nothing that controls a terminal is left.
func (c *console) lastLine(token string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := ""
	for line := range strings.Lines(string(c.b)) {
		if line = plain(line); line != "" && !strings.Contains(line, token) {
			last = line
		}
	}
	return last[:min(len(last), maxLine)]
}

// plain keeps what is printed of a line: control sequences (ESC [ … letter) and
// all but printable ASCII are dropped.
// Source: ECMA-48, 5th edition, section 5.4.
func plain(line string) string {
	var out strings.Builder
	for i := 0; i < len(line); i++ {
		switch b := line[i]; {
		case b == 0x1b:
			if i++; i < len(line) && line[i] == '[' {
				for i++; i < len(line) && (line[i] < 0x40 || line[i] > 0x7e); i++ {
				}
			}
		case b >= 0x20 && b < 0x7f:
			out.WriteByte(b)
		}
	}
	return strings.TrimSpace(out.String())
}
