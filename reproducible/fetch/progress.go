package fetch

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"github.com/kraudcloud/kattest/reproducible/lock"
)

// progress counts bytes and files of one GetAll.
type progress struct {
	*counts
	log   io.Writer
	live  bool  // a terminal, on which one line changes
	total int   // files
	size  int64 // bytes
	quit  chan struct{}
	ended chan struct{}
}

type counts struct {
	bytes atomic.Int64
	files atomic.Int64
}

// every is how often a line is written where there is no terminal.
const every = 5 * time.Second

func newProgress(log io.Writer, inputs []lock.Input) progress {
	p := progress{counts: &counts{}, log: log, total: len(inputs)}
	for _, in := range inputs {
		p.size += in.Size
	}
	if log == nil {
		return p
	}
	p.quit, p.ended = make(chan struct{}), make(chan struct{})
	interval := every
	if file, ok := log.(*os.File); ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		interval = 100 * time.Millisecond
		p.live = true
	} else {
		fmt.Fprintf(log, "fetch: %d files, %s\n", p.total, megabytes(p.size))
	}
	go p.run(interval)
	return p
}

func (p progress) run(interval time.Duration) {
	defer close(p.ended)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-tick.C:
			p.draw()
		}
	}
}

// draw says how far it is. A bar would bring a library that every start of kattest
// pays for.
func (p progress) draw() {
	begin, end := "", "\n"
	if p.live {
		begin, end = "\r", "\x1b[K" // which clears what a longer line left
	}
	fmt.Fprintf(p.log, "%sfetch: %d of %d files, %s of %s%s",
		begin, p.files.Load(), p.total, megabytes(p.bytes.Load()), megabytes(p.size), end)
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// done counts one file.
func (p progress) done() { p.files.Add(1) }

func (p progress) close() {
	if p.log == nil {
		return
	}
	close(p.quit)
	<-p.ended
	p.draw()
	if p.live {
		fmt.Fprintln(p.log)
	}
}

// reader counts what is read through it.
func (p progress) reader(r io.Reader) io.Reader { return &counter{r, p.counts} }

type counter struct {
	r io.Reader
	c *counts
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.c.bytes.Add(int64(n))
	return n, err
}

// watch counts the bytes of a file that another process writes.
func (p progress) watch(file string) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	var seen int64
	look := func() {
		if info, err := os.Stat(file); err == nil {
			p.bytes.Add(info.Size() - seen)
			seen = info.Size()
		}
	}
	go func() {
		defer close(ended)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				look()
				return
			case <-tick.C:
				look()
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-ended })
}
