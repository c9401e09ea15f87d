package reproducible

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/sandbox"
	"github.com/kraudcloud/kattest/reproducible/vary"
)

// umask of the second build: nobody but the user may read.
const umask = 0o077

// Varied says in what a second build differs from the first, for people.
func Varied() string {
	return fmt.Sprintf("folder, umask %04o, one job more, %s", umask, vary.Text())
}

// DifferError says that two builds of one file differ. The cache keeps both.
type DifferError struct {
	Name          string // in the boot stack
	First, Second string // files
}

func (e *DifferError) Error() string {
	return fmt.Sprintf("%s: two builds of the same inputs differ: %s and %s", e.Name, e.First, e.Second)
}

// BuildTwice is Build, and makes every file a second time where all that it may
// not depend on is another, as Varied says. What takes minutes is made again only
// where the cache knows of no second time. Files that differ are joined
// *DifferError, and the stack is not written.
//
// It changes the umask of the process while it builds the second time.
func BuildTwice(ctx context.Context, o Options) (stack.Stack, error) {
	b, err := newBuilder(o)
	if err != nil {
		return stack.Stack{}, err
	}
	first, err := b.build(ctx)
	if err != nil {
		return stack.Stack{}, err
	}
	second, err := b.second().varied(ctx)
	if err != nil {
		return stack.Stack{}, fmt.Errorf("the second time: %w", err)
	}
	if err := same(first, second); err != nil {
		return stack.Stack{}, err
	}
	return first.stack, b.publish(first)
}

// same returns the files that differ.
func same(first, second built) error {
	var errs []error
	for i, f := range first.stack.Files {
		if f.SHA256 != second.stack.Files[i].SHA256 {
			errs = append(errs, &DifferError{f.Name, first.files[f.Name], second.files[f.Name]})
		}
	}
	return errors.Join(errs...)
}

// second is the builder of the second time, with a cache of its own.
func (b *builder) second() *builder {
	s := *b
	s.Jobs++
	s.vary = filepath.Join(b.Cache, "second", vary.Digest()[:12])
	s.progress = &progress{w: b.Log, prefix: "second "}
	s.cache = cache{dir: s.vary, log: s.progress, remake: true}
	return &s
}

// varied is build under another umask.
func (b *builder) varied(ctx context.Context) (built, error) {
	defer unix.Umask(unix.Umask(umask))
	return b.build(ctx)
}

// run runs a step of a recipe.
func (b *builder) run(ctx context.Context, c sandbox.Command) error {
	if b.vary == "" {
		return c.Run(ctx)
	}
	dir := b.vary
	if c.Root != "" {
		dir = filepath.Dir(c.Root) // each root's own: what is loaded must fit its C library
	}
	return vary.Run(ctx, c, dir)
}
