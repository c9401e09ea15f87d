package reproducible

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/kernel"
	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/sandbox"
)

// rootSet is the set of the packages that the clean root is made of.
const rootSet = "build-root"

func (b *builder) kernel() (artefact, error) {
	source, err := b.input(lock.KindDeb, kernel.Source)
	if err != nil {
		return artefact{}, err
	}
	root := b.lock.Set(rootSet)
	if len(root) == 0 {
		return artefact{}, fmt.Errorf("%w lock file: %s: the set %q is empty", ErrUsage, b.Lock, rootSet)
	}
	k := kernelKey(source, root, kernel.Patches())
	return artefact{
		name:   stack.Kernel,
		source: fmt.Sprintf("%s %s with reproducible/kernel/%s and *.patch", source.Name, source.Version, kernel.FragmentFile),
		key:    k,
		slow:   true,
		also:   []string{stack.Config},
		make: func(ctx context.Context, work, out string) ([]stack.Stage, error) {
			return b.makeKernel(ctx, k, source, root, work, out)
		},
	}, nil
}

func kernelKey(source lock.Input, root []lock.Input, patches []kernel.Patch) key {
	k := newKey("kernel 2")
	k.inputs("source", []lock.Input{source})
	k.inputs("root", root)
	k.add("fragment", kernel.Fragment)
	k.add("script", kernel.Script)
	for _, p := range patches {
		k.add(p.Name, p.Data)
	}
	k.strings("environment", kernel.Env())
	return k
}

func (b *builder) makeKernel(ctx context.Context, k key, source lock.Input, root []lock.Input, work, out string) (stages []stack.Stage, err error) {
	log, err := b.openLog(stack.Kernel, "kernel", k)
	if err != nil {
		return nil, err
	}
	defer func() { err = log.close(err) }()
	b.progress.say(stack.Kernel, "clean root of %d packages", len(root))
	rootDir := filepath.Join(work, "root")
	if err := b.makeRoot(ctx, root, rootDir); err != nil {
		return nil, err
	}
	inputs, dir := filepath.Join(work, "in"), filepath.Join(work, "build")
	if err := b.kernelInputs(ctx, source, work, inputs); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	run := func(args ...string) error {
		return b.run(ctx, sandbox.Command{
			Root: rootDir,
			Binds: []sandbox.Bind{
				{Host: inputs, Guest: kernel.Inputs},
				{Host: dir, Guest: kernel.Work, Writable: true},
			},
			Dir:    kernel.Work,
			Env:    kernel.Env(),
			Args:   append([]string{"/bin/sh", kernel.Inputs + "/" + kernel.ScriptFile}, args...),
			Output: log,
		})
	}
	b.progress.say(stack.Kernel, "configuring %v", source)
	if err := run(kernel.Configure); err != nil {
		return nil, err
	}
	if err := checkConfig(filepath.Join(dir, kernel.ConfigFile)); err != nil {
		return nil, err
	}
	b.progress.say(stack.Kernel, "compiling, %d jobs; the output goes to %s", b.Jobs, log.file.Name())
	if err := run(kernel.Compile, strconv.Itoa(b.Jobs)); err != nil {
		return nil, err
	}
	config := filepath.Join(filepath.Dir(out), stack.Config)
	if err := os.Rename(filepath.Join(dir, kernel.ConfigFile), config); err != nil {
		return nil, err
	}
	stages, err = stagesOf(stageTree("clean root", rootDir), stageTree("source", inputs), stageFile("configuration", config))
	if err != nil {
		return nil, err
	}
	return stages, os.Rename(filepath.Join(dir, kernel.ImageFile), out)
}

func checkConfig(file string) error {
	config, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if dropped := kernel.Dropped(kernel.Fragment, config); len(dropped) > 0 {
		return fmt.Errorf("the kernel's configuration did not take all of %s:\n\t%s",
			kernel.FragmentFile, strings.Join(dropped, "\n\t"))
	}
	return nil
}

// kernelInputs fills the folder that the script reads.
func (b *builder) kernelInputs(ctx context.Context, source lock.Input, work, dir string) error {
	deb, err := b.fetch.Get(ctx, source)
	if err != nil {
		return err
	}
	unpacked := filepath.Join(work, "source")
	if err := debian.Extract(ctx, []string{deb}, unpacked); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, p := range kernel.Patches() {
		if err := os.WriteFile(filepath.Join(dir, p.Name), p.Data, 0o644); err != nil {
			return err
		}
	}
	tarball := kernel.Source + ".tar.xz"
	return errors.Join(
		os.Rename(filepath.Join(unpacked, "usr", "src", tarball), filepath.Join(dir, tarball)),
		os.WriteFile(filepath.Join(dir, kernel.FragmentFile), kernel.Fragment, 0o644),
		os.WriteFile(filepath.Join(dir, kernel.ScriptFile), kernel.Script, 0o644),
	)
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

// copyFile copies a file with mode 0644.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
