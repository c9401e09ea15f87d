package cradle

import (
	"fmt"
	"io"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/kraudcloud/kattest/internal/cli"
)

// progress shows long work: a bar for each step on a terminal, a line for each
// step elsewhere.
type progress struct {
	w    io.Writer
	bars *mpb.Progress // nil without a terminal
	step string
	bar  *mpb.Bar
	once sync.Once
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if cli.IsTerminal(w) {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(64))
	}
	return p
}

// report is an image.Progress.
func (p *progress) report(step string, done, total int64) {
	if step != p.step {
		p.finish()
		p.step = step
		p.start(total)
	}
	if p.bar != nil {
		p.bar.SetCurrent(done)
	}
}

func (p *progress) start(total int64) {
	if p.bars == nil {
		fmt.Fprintf(p.w, "cradle-snp: %s\n", p.step)
		return
	}
	p.bar = p.bars.AddBar(total, mpb.PrependDecorators(decor.Name(p.step)),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
}

// finish ends the step that is shown. Totals are estimates: a bar that has not
// reached its own would be waited for without end.
func (p *progress) finish() {
	if p.bar != nil {
		p.bar.Abort(false)
		p.bar = nil
	}
}

func (p *progress) close() {
	p.once.Do(func() {
		p.finish()
		if p.bars != nil {
			p.bars.Wait()
		}
	})
}
