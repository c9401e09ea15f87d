package reproducible

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/kernel"
	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/sandbox"
)

// workshop is where a recipe's script runs: a clean root of locked packages, a
// folder of inputs, and one to work in.
type workshop struct {
	b                 *builder
	root, inputs, dir string
}

// workshop makes one below an empty folder. fill makes the folder of the inputs.
func (b *builder) workshop(ctx context.Context, packages []lock.Input, work string, fill func(dir string) error) (workshop, error) {
	w := workshop{b, filepath.Join(work, "root"), filepath.Join(work, "in"), filepath.Join(work, "build")}
	if err := b.makeRoot(ctx, packages, w.root); err != nil {
		return workshop{}, err
	}
	if err := fill(w.inputs); err != nil {
		return workshop{}, err
	}
	return w, os.Mkdir(w.dir, 0o755)
}

// script returns what runs the script, which stands among the inputs, with
// arguments. inputs and dir are the names of the folders inside.
func (w workshop) script(ctx context.Context, inputs, file, dir string, env []string, output io.Writer) func(args ...string) error {
	return func(args ...string) error {
		return w.b.run(ctx, sandbox.Command{
			Root:   w.root,
			Binds:  []sandbox.Bind{{Host: w.inputs, Guest: inputs}, {Host: w.dir, Guest: dir, Writable: true}},
			Dir:    dir,
			Env:    env,
			Args:   append([]string{"/bin/sh", inputs + "/" + file}, args...),
			Output: output,
		})
	}
}

// makeRoot unpacks packages into a root for the sandbox, with the folders that
// are mounted upon.
func (b *builder) makeRoot(ctx context.Context, packages []lock.Input, root string) error {
	debs, err := b.fetch.GetAll(ctx, packages)
	if err != nil {
		return err
	}
	if err := debian.Extract(ctx, debs, root); err != nil {
		return err
	}
	for _, dir := range []string{"proc", "dev", "tmp", kernel.Inputs, kernel.Work} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// openLog opens the log of an artefact's recipe.
func (b *builder) openLog(artefact, recipe string, k key) (*buildLog, error) {
	dir := filepath.Join(b.cache.dir, "log")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return b.progress.open(artefact, filepath.Join(dir, recipe+"-"+k.String()[:12]+".log"))
}
