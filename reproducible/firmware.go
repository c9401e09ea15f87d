package reproducible

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/firmware"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// Sets of the lock file.
const (
	// firmwareSet holds edk2's source.
	firmwareSet = "firmware"
	// firmwareRootSet are the packages of the clean root that compiles it.
	firmwareRootSet = "firmware-root"
)

// firmwareRecipe is all that the firmware is made from.
type firmwareRecipe struct {
	tarballs, root []lock.Input
	patches        []firmware.Patch
}

// firmware is edk2's AmdSev platform, which compares kernel, initrd and command
// line with their hashes.
func (b *builder) firmware() (artefact, error) {
	var tarballs []lock.Input
	for _, in := range b.lock.Set(firmwareSet) {
		if in.Kind == lock.KindSource && in.Name == firmware.Source {
			tarballs = append(tarballs, in)
		}
	}
	if len(tarballs) == 0 {
		return artefact{}, fmt.Errorf("%w lock file: %s: the set %q has no tarballs of the source %s", ErrUsage, b.Lock, firmwareSet, firmware.Source)
	}
	root := b.lock.Set(firmwareRootSet)
	if len(root) == 0 {
		return artefact{}, fmt.Errorf("%w lock file: %s: the set %q is empty", ErrUsage, b.Lock, firmwareRootSet)
	}
	patches, err := firmware.Patches()
	if err != nil {
		return artefact{}, err
	}
	r := firmwareRecipe{tarballs, root, patches}
	k := firmwareKey(r)
	return artefact{
		name:   stack.Firmware,
		source: fmt.Sprintf("OvmfPkg/AmdSev of %v with the patches of reproducible/firmware", tarballs[0]),
		key:    k,
		slow:   true,
		make: func(ctx context.Context, work, out string) ([]stack.Stage, error) {
			return b.makeFirmware(ctx, k, r, work, out)
		},
	}, nil
}

func firmwareKey(r firmwareRecipe) key {
	k := newKey("firmware 2")
	k.inputs("source", r.tarballs)
	k.inputs("root", r.root)
	for _, p := range r.patches {
		k.add(p.Name, p.Data)
	}
	k.add("script", firmware.Script)
	k.strings("environment", firmware.Env())
	return k
}

func (b *builder) makeFirmware(ctx context.Context, k key, r firmwareRecipe, work, out string) (stages []stack.Stage, err error) {
	log, err := b.openLog(stack.Firmware, "firmware", k)
	if err != nil {
		return nil, err
	}
	defer func() { err = log.close(err) }()
	b.progress.say(stack.Firmware, "clean root of %d packages", len(r.root))
	w, err := b.workshop(ctx, r.root, work, func(dir string) error { return b.firmwareInputs(ctx, r, dir) })
	if err != nil {
		return nil, err
	}
	run := w.script(ctx, firmware.Inputs, firmware.ScriptFile, firmware.Work, firmware.Env(), log)
	b.progress.say(stack.Firmware, "patching %v", r.tarballs[0])
	if err := run(firmware.Unpack); err != nil {
		return nil, err
	}
	patched, err := stageTree("patched source", w.dir)()
	if err != nil {
		return nil, err
	}
	b.progress.say(stack.Firmware, "compiling, %d jobs; the output goes to %s", b.Jobs, log.file.Name())
	if err := run(firmware.Compile, strconv.Itoa(b.Jobs), r.tarballs[0].Version); err != nil {
		return nil, err
	}
	stages, err = stagesOf(stageTree("clean root", w.root), stageTree("source", w.inputs))
	if err != nil {
		return nil, err
	}
	return append(stages, patched), os.Rename(filepath.Join(w.dir, firmware.ImageFile), out)
}

// firmwareInputs fills the folder that the script reads.
func (b *builder) firmwareInputs(ctx context.Context, r firmwareRecipe, dir string) error {
	files, err := b.fetch.GetAll(ctx, r.tarballs)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	errs := []error{os.WriteFile(filepath.Join(dir, firmware.ScriptFile), firmware.Script, 0o644)}
	for i, in := range r.tarballs {
		errs = append(errs, copyFile(files[i], filepath.Join(dir, in.File())))
	}
	for _, p := range r.patches {
		errs = append(errs, os.WriteFile(filepath.Join(dir, p.Name), p.Data, 0o644))
	}
	return errors.Join(errs...)
}
