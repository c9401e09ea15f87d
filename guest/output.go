package guest

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

// outputPatience is how long the workload's output waits for a host that does
// not read. Then it is dropped, and no more waited for until the host reads.
const outputPatience = time.Second

const outputChunk = 32 << 10 // bytes

// output is the workload's standard output and error on their way to the host.
type output struct{ drained sync.WaitGroup }

// open returns the writing end of a pipe. What comes out at the other end goes
// to the port of that name if the spec says so, and nowhere if not.
func (o *output) open(ctx context.Context, console pod.Console, name string) (*os.File, error) {
	sink := io.Discard
	if console == pod.ConsoleOutput {
		p, err := openPort(ctx, name)
		if err != nil {
			return nil, err
		}
		sink = &lossy{port: p}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.drained.Go(func() {
		defer r.Close()
		buffer := make([]byte, outputChunk)
		for {
			n, err := r.Read(buffer)
			_, _ = sink.Write(buffer[:n]) // a lossy writer and Discard fail never
			if err != nil {
				return
			}
		}
	})
	return w, nil
}

func (o *output) openBoth(ctx context.Context, console pod.Console) (stdout, stderr *os.File, err error) {
	if stdout, err = o.open(ctx, console, port.StdoutPort); err != nil {
		return nil, nil, err
	}
	if stderr, err = o.open(ctx, console, port.StderrPort); err != nil {
		stdout.Close()
		return nil, nil, err
	}
	return stdout, stderr, nil
}

// lossy writes to a port and drops what the host does not read in time.
type lossy struct {
	port    deadlined
	stalled bool
}

// Write never fails.
func (l *lossy) Write(p []byte) (int, error) {
	patience := outputPatience
	if l.stalled {
		patience = time.Millisecond
	}
	err := l.port.SetWriteDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = l.port.Write(p)
	}
	l.stalled = err != nil
	return len(p), nil
}
