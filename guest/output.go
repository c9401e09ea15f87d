package guest

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

// outputPatience is how long the workload's output waits for a host that does
// not read. Then it is dropped, and no more waited for until the host reads.
const outputPatience = time.Second

const outputChunk = 32 << 10 // bytes

// logSize is what is kept of the workload's output for those who may read it, in
// bytes of memory.
const logSize = 4 << 20

// output is where the workload's standard output and error go: to the log, and to the
// host if the spec says so.
type output struct {
	log            *container.Log
	stdout, stderr io.Writer // the host's ports; these fail never
	drained        sync.WaitGroup
}

func (o *output) open(ctx context.Context, console pod.Console) error {
	for _, sink := range []struct {
		to   *io.Writer
		name string
	}{{&o.stdout, port.StdoutPort}, {&o.stderr, port.StderrPort}} {
		*sink.to = io.Discard
		if console == pod.ConsoleOutput {
			p, err := openPort(ctx, sink.name)
			if err != nil {
				return err
			}
			*sink.to = &lossy{port: p}
		}
	}
	return nil
}

// drain reads the output of a workload to its end.
func (o *output) drain(p *container.Process) {
	o.copy(container.Stdout, o.stdout, p.Stdout)
	if p.Stderr != nil {
		o.copy(container.Stderr, o.stderr, p.Stderr)
	}
}

func (o *output) copy(stream container.Stream, host io.Writer, from io.ReadCloser) {
	o.drained.Go(func() {
		defer from.Close()
		buffer := make([]byte, outputChunk)
		for {
			n, err := from.Read(buffer)
			o.log.Append(stream, buffer[:n])
			_, _ = host.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	})
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
