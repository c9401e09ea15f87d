package reproducible

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// progress writes the build's steps, one a line. The zero value is silence.
type progress struct {
	mu     sync.Mutex
	w      io.Writer
	prefix string // of each step
}

func (p *progress) say(step, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil {
		fmt.Fprintf(p.w, "build: %s%s: %s\n", p.prefix, step, fmt.Sprintf(format, args...))
	}
}

// buildLog is a file that takes a long step's output, of which the user sees
// how long it has grown.
type buildLog struct {
	file  *os.File
	lines atomic.Int64
	stop  func()
}

// every is how often a long step shows that it is alive.
const every = 30 * time.Second

func (p *progress) open(step, name string) (*buildLog, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	l := &buildLog{file: f}
	quit := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		start := time.Now()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				p.say(step, "%v, %d lines of output", time.Since(start).Round(time.Second), l.lines.Load())
			}
		}
	})
	l.stop = sync.OnceFunc(func() { close(quit); ended.Wait() })
	return l, nil
}

func (l *buildLog) Write(b []byte) (int, error) {
	for _, c := range b {
		if c == '\n' {
			l.lines.Add(1)
		}
	}
	return l.file.Write(b)
}

// close ends the log. The error of a step that failed by itself gets the log's
// name and its last lines.
func (l *buildLog) close(err error) error {
	l.stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w; the end of %s:\n%s", err, l.file.Name(), l.tail())
	}
	l.file.Close()
	return err
}

// tailSize is how much of a log an error shows, in bytes at most.
const tailSize = 2048

func (l *buildLog) tail() []byte {
	b := make([]byte, tailSize)
	info, err := l.file.Stat()
	if err != nil {
		return nil
	}
	n, _ := l.file.ReadAt(b, max(0, info.Size()-tailSize))
	return b[:n]
}
