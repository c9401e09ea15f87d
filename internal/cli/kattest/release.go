package kattest

import (
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
)

// compare holds what is measured against a release: the same components, from
// the same lock, with the same command line, that give the same digests. All
// that differ are reported together.
func (in inputs) compare(r release.Release) error {
	var errs []error
	differ := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if r.Lock != in.stack.Lock {
		differ("lock: SHA-256 %s, the release has %s", in.stack.Lock, r.Lock)
	}
	if r.Cmdline != in.stack.Cmdline {
		differ("command line: %q, the release has %q", in.stack.Cmdline, r.Cmdline)
	}
	for _, c := range r.Components {
		f, ok := in.stack.File(c.Name)
		switch {
		case !ok:
			differ("%s: not in the stack", c.Name)
		case f.SHA256 != c.SHA256.String():
			differ("%s: SHA-256 %s, the release has %v", c.Name, f.SHA256, c.SHA256)
		}
	}
	if len(in.stack.Files) > len(r.Components) {
		differ("%d files, the release has %d", len(in.stack.Files), len(r.Components))
	}
	shapes := make([]measure.Shape, len(r.Table))
	for i, e := range r.Table {
		shapes[i] = e.Shape()
	}
	digests, err := measure.Matrix(in.firmware, in.hashes, shapes)
	if err != nil {
		return cli.Usage(err, "")
	}
	for i, e := range r.Table {
		if digests[i] != e.Measurement {
			differ("%d vCPUs of %v: digest %v, the release has %v", e.VCPUs, shapes[i].CPU, digests[i], e.Measurement)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return &cli.Error{
			Code: cli.ExitMismatch, Err: fmt.Errorf("the stack is not the release's: %w", err),
			Hint: "build the stack from the release's sources, or take the release that belongs to it",
		}
	}
	return nil
}
