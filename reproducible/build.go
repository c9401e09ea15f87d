// Package reproducible builds the boot stack: firmware, kernel and initrd with
// the guest agent, and the manifest that holds them together. Every input is
// named by the lock file, and the same lock file and sources give the same bytes
// on every machine.
//
// It does not check what the inputs do, nor that two builds agree: whoever
// doubts a stack builds it again and compares.
package reproducible

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/initrd"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// Cmdline is the kernel command line of every stack. Under KVM Linux does without the
// timer's check by itself; elsewhere a busy machine fails it, and the kernel panics.
const Cmdline = "console=ttyS0 quiet panic=-1 lockdown=integrity random.trust_bootloader=off no_timer_check"

// ErrUsage says that what the caller named cannot be built from or into: a lock
// file that is none or lacks an input, or a folder that holds something else.
var ErrUsage = errors.New("unusable")

// Options says what to build, and where.
type Options struct {
	// Source is a checkout of this module.
	Source string
	// Lock is the lock file; empty: reproducible/lock.json in Source.
	Lock string
	// Out is the folder that becomes the boot stack. It must be absent, empty or
	// a boot stack, which is replaced.
	Out string
	// Cache keeps inputs and artefacts. Several builds may share it.
	Cache string
	// Folders are searched for inputs before the machine's mirrors are asked.
	Folders []string
	// Jobs is how many compilers run at a time; 0: one for each processor.
	Jobs int
	// Log takes progress. Nil is silence.
	Log io.Writer
}

// builder is one build under way.
type builder struct {
	Options
	lock     lock.Lock
	fetch    *fetch.Fetcher
	cache    cache
	progress *progress
	// vary is a folder for what varies a second build; empty for a first.
	vary string
}

// Build makes the boot stack and returns its manifest. The folder is written
// whole or not at all. An input that is to be had nowhere is a
// *fetch.UnavailableError, a machine without bubblewrap sandbox.ErrMissing.
func Build(ctx context.Context, o Options) (stack.Stack, error) {
	b, err := newBuilder(o)
	if err != nil {
		return stack.Stack{}, err
	}
	made, err := b.build(ctx)
	if err != nil {
		return stack.Stack{}, err
	}
	return made.stack, b.publish(made)
}

// built is a boot stack in the cache.
type built struct {
	stack stack.Stack
	files map[string]string // paths, by name in the stack
}

// build makes every file that the cache does not hold.
func (b *builder) build(ctx context.Context) (built, error) {
	if err := checkOut(b.Out); err != nil {
		return built{}, err
	}
	s := stack.Stack{MediaType: stack.MediaType, Lock: b.lock.Digest(), Cmdline: Cmdline}
	files := map[string]string{}
	// The kernel is last: the others take less time, and their errors should too.
	for _, recipe := range []func() (artefact, error){
		b.firmware, b.agent, func() (artefact, error) { return b.initrd(files[stack.Agent]) }, b.kernel,
	} {
		a, err := recipe()
		if err != nil {
			return built{}, err
		}
		dir, stages, err := b.cache.get(ctx, a)
		if err != nil {
			return built{}, err
		}
		for _, name := range a.files() {
			files[name] = filepath.Join(dir, name)
			described, err := stack.Describe(dir, name, a.source)
			if err != nil {
				return built{}, err
			}
			if name == a.name {
				described.Stages = stages
			}
			s.Files = append(s.Files, described)
		}
	}
	return built{s, files}, nil
}

func (b *builder) publish(made built) error {
	if err := publish(made.stack, made.files, b.Out); err != nil {
		return fmt.Errorf("writing the boot stack: %w", err)
	}
	return nil
}

func newBuilder(o Options) (*builder, error) {
	if o.Lock == "" {
		o.Lock = filepath.Join(o.Source, "reproducible", "lock.json")
	}
	if o.Jobs < 1 {
		o.Jobs = runtime.NumCPU()
	}
	for _, path := range []*string{&o.Source, &o.Out, &o.Cache} {
		if *path == "" {
			return nil, errors.New("source, output and cache must be named")
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = abs
	}
	l, err := lock.Load(o.Lock)
	if err != nil {
		return nil, fmt.Errorf("%w lock file: %w", ErrUsage, err)
	}
	p := &progress{w: o.Log}
	return &builder{
		Options:  o,
		lock:     l,
		fetch:    &fetch.Fetcher{Cache: o.Cache, Folders: o.Folders, Log: o.Log},
		cache:    cache{dir: o.Cache, log: p},
		progress: p,
	}, nil
}

// input returns the one locked input of that kind and name.
func (b *builder) input(kind, name string) (lock.Input, error) {
	var found []lock.Input
	for _, in := range b.lock.Inputs {
		if in.Kind == kind && in.Name == name {
			found = append(found, in)
		}
	}
	if len(found) != 1 {
		return lock.Input{}, fmt.Errorf("%w lock file: %s: %d inputs of kind %s are named %s, want one", ErrUsage, b.Lock, len(found), kind, name)
	}
	return found[0], nil
}

func (b *builder) initrd(agent string) (artefact, error) {
	data, err := os.ReadFile(agent)
	if err != nil {
		return artefact{}, err
	}
	archive, err := initrd.Encode(initrdEntries(data))
	if err != nil {
		return artefact{}, err
	}
	// Compressed before the cache is asked: another compressor has another key.
	compressed, err := initrd.Compress(archive)
	if err != nil {
		return artefact{}, err
	}
	k := newKey("initrd 2")
	k.add("file", compressed)
	return artefact{
		name:   stack.Initrd,
		source: stack.Agent + " as /init, in LZ4",
		key:    k,
		make: func(_ context.Context, _, out string) ([]stack.Stage, error) {
			return nil, os.WriteFile(out, compressed, 0o644)
		},
	}, nil
}

// initrdEntries is the agent's world before it mounts anything: the kernel opens
// /dev/console before it starts /init.
func initrdEntries(agent []byte) []initrd.Entry {
	dir := func(name string) initrd.Entry { return initrd.Entry{Name: name, Mode: initrd.TypeDir | 0o755} }
	return []initrd.Entry{
		dir("dev"),
		{Name: "dev/console", Mode: initrd.TypeChar | 0o600, Major: 5, Minor: 1},
		{Name: "dev/null", Mode: initrd.TypeChar | 0o666, Major: 1, Minor: 3},
		dir("proc"),
		dir("run"),
		dir("sys"),
		{Name: "init", Mode: initrd.TypeFile | 0o755, Data: agent},
	}
}
