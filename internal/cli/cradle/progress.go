package cradle

import (
	"io"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/kraudcloud/kattest/internal/cli"
)

// progress shows long work on a terminal, a bar for each step. Elsewhere it is
// silent: a log has no use for it.
type progress struct {
	bars *mpb.Progress // nil without a terminal
	step string
	bar  *mpb.Bar
	once sync.Once
}

func newProgress(w io.Writer) *progress {
	p := &progress{}
	if cli.IsTerminal(w) {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	}
	return p
}

// report is an image.Progress.
func (p *progress) report(step string, done, total int64) {
	if p.bars == nil {
		return
	}
	if step != p.step || p.bar == nil {
		p.complete()
		p.step = step
		p.bar = p.add(total)
	}
	p.bar.SetCurrent(done)
}

// add adds a bar; without a total, a spinner.
func (p *progress) add(total int64) *mpb.Bar {
	name := mpb.PrependDecorators(decor.Name(p.step, decor.WCSyncSpaceR))
	if total == 0 {
		return p.bars.New(0, mpb.SpinnerStyle(), name, mpb.AppendDecorators(
			decor.CurrentKibiByte("% .1f"), decor.Name("  "), decor.Elapsed(decor.ET_STYLE_MMSS)))
	}
	// Made without a total, as one that was made with one cannot be ended short of it.
	bar := p.bars.AddBar(0, name, mpb.AppendDecorators(
		decor.CountersKibiByte("% .1f / % .1f"), decor.Name("  "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f"),
		decor.Name("  "), decor.OnComplete(decor.AverageETA(decor.ET_STYLE_MMSS), "done")))
	bar.SetTotal(total, false)
	return bar
}

// complete ends the step that is shown. Totals are estimates: a bar that has not
// reached its own would be waited for without end.
func (p *progress) complete() {
	if p.bar != nil {
		p.bar.SetTotal(-1, true)
		p.bar = nil
	}
}

// close ends the display. Work that failed leaves its bar where it was.
func (p *progress) close(err error) {
	p.once.Do(func() {
		if p.bars == nil {
			return
		}
		if err == nil {
			p.complete()
		} else if p.bar != nil {
			p.bar.Abort(false)
		}
		p.bars.Wait()
	})
}
