package kattest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/verifier"
)

// explainMismatch adds to a measurement that is no release's which launch made it,
// or how many were ruled out. It changes what people read, never an outcome, and
// keeps no verdict back. A report that is not authentic is left alone: there is no
// launch behind it.
func (f *judgeFlags) explainMismatch(ctx context.Context, r *verifier.Result, stderr io.Writer) {
	if len(f.releases.releases) == 0 || r.Verdict != verifier.Mismatch {
		return
	}
	found := measure.Digest(r.Claims.Measurement)
	for i := range r.Checks {
		c := &r.Checks[i]
		if c.Code != verifier.CodeMeasurement || c.Outcome != verifier.Fail {
			continue
		}
		if r, ok := f.releases.lists(found); ok {
			if r.revoked != "" {
				c.Reason, c.Hint = fmt.Sprintf("a launch of %s, which is revoked: %s", r.name(), r.revoked), "launch the publisher's newest release"
			}
			continue
		}
		if f.explainFor <= 0 {
			continue
		}
		e, err := f.search(ctx, found, stderr)
		if err != nil {
			c.Reason += fmt.Sprintf(". No explanation: %v", err)
			continue
		}
		addExplanation(c, e)
	}
}

// search looks at the launches of all releases that are given.
func (f *judgeFlags) search(ctx context.Context, found measure.Digest, stderr io.Writer) (explanation, error) {
	space := usualSpace()
	for _, r := range f.releases.releases {
		src, err := releaseSource(r.file, r.Release)
		if err != nil {
			return explanation{}, err
		}
		space.Sources = append(space.Sources, src)
	}
	limited, cancel := context.WithTimeout(ctx, f.explainFor)
	defer cancel()
	e, err := searchLaunch(limited, found, space, newSearchProgress(stderr))
	if ctx.Err() != nil { // stopped, which is not that the time was up
		return explanation{}, context.Cause(ctx)
	}
	return e, err
}

// defaultExplainFor is enough for the usual space on one processor, even without
// AVX-512, and little to wait for a verdict.
const defaultExplainFor = 10 * time.Second

func addExplanation(c *verifier.Check, e explanation) {
	if e.Explanation == nil {
		c.Reason += ". " + answerLine(e)
		c.Hint = "another firmware, kernel, initrd or command line; 'kattest explain' searches further ones"
		return
	}
	var meanings, changes []string
	for _, d := range e.Explanation.Differences {
		meanings = append(meanings, d.Meaning)
		changes = append(changes, d.Change)
	}
	c.Reason = fmt.Sprintf("not one of the releases' launches, but a launch of the parts of %s: %s", e.Explanation.Nearest, strings.Join(meanings, "; "))
	c.Hint = "launch with " + strings.Join(changes, "; ")
}
