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
	w, err := b.workshop(ctx, root, work, func(dir string) error { return b.kernelInputs(ctx, source, work, dir) })
	if err != nil {
		return nil, err
	}
	run := w.script(ctx, kernel.Inputs, kernel.ScriptFile, kernel.Work, kernel.Env(), log)
	b.progress.say(stack.Kernel, "configuring %v", source)
	if err := run(kernel.Configure); err != nil {
		return nil, err
	}
	if err := checkConfig(filepath.Join(w.dir, kernel.ConfigFile)); err != nil {
		return nil, err
	}
	b.progress.say(stack.Kernel, "compiling, %d jobs; the output goes to %s", b.Jobs, log.file.Name())
	if err := run(kernel.Compile, strconv.Itoa(b.Jobs)); err != nil {
		return nil, err
	}
	config := filepath.Join(filepath.Dir(out), stack.Config)
	if err := os.Rename(filepath.Join(w.dir, kernel.ConfigFile), config); err != nil {
		return nil, err
	}
	stages, err = stagesOf(stageTree("clean root", w.root), stageTree("source", w.inputs), stageFile("configuration", config))
	if err != nil {
		return nil, err
	}
	return stages, os.Rename(filepath.Join(w.dir, kernel.ImageFile), out)
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
