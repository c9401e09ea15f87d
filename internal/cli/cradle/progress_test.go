package cradle

import (
	"io"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8"
)

// Bars that never reach their total, or have none, do not keep the program.
func TestProgressEnds(t *testing.T) {
	p := &progress{w: io.Discard, bars: mpb.New(mpb.WithOutput(io.Discard))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.report("short of its total", 0, 10)
		p.report("short of its total", 5, 10)
		p.report("without a total", 0, 0)
		p.report("complete", 10, 10)
		p.close()
		p.close()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("still waiting for a bar")
	}
}
