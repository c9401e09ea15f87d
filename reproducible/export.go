package reproducible

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/reproducible/inputs"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// Export writes an archive of all that Build reads beside the checkout: what the
// lock file names, and the agent's modules. Out of the options is not used.
func Export(ctx context.Context, o Options, w io.Writer) error {
	o.Out = os.DevNull
	b, err := newBuilder(o)
	if err != nil {
		return err
	}
	paths, err := b.fetch.GetAll(ctx, b.lock.Inputs)
	if err != nil {
		return err
	}
	files := []inputs.File{{Name: inputs.LockFile, Path: b.Lock}}
	seen := map[string]bool{}
	for i, in := range b.lock.Inputs {
		if !seen[in.SHA256] {
			seen[in.SHA256] = true
			files = append(files, inputs.File{Name: inputs.Input(in.SHA256), Path: paths[i]})
		}
	}
	work, err := os.MkdirTemp("", "kattest-inputs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	modules, err := b.moduleFiles(ctx, work)
	if err != nil {
		return err
	}
	if err := inputs.Write(w, append(files, modules...)); err != nil {
		return fmt.Errorf("writing the archive: %w", err)
	}
	return nil
}

// moduleFiles returns the files of a module cache that holds what the agent's
// build reads of it and nothing else; none if the lock file is of another build,
// and names no toolchain.
func (b *builder) moduleFiles(ctx context.Context, work string) ([]inputs.File, error) {
	if !slices.ContainsFunc(b.lock.Inputs, func(in lock.Input) bool { return in.Name == toolchainModule }) {
		return nil, nil
	}
	toolchain, err := b.input(lock.KindGo, toolchainModule)
	if err != nil {
		return nil, err
	}
	archive, err := b.fetch.Get(ctx, toolchain)
	if err != nil {
		return nil, err
	}
	goroot, src := filepath.Join(work, "go"), filepath.Join(work, "src")
	if err := unpackToolchain(archive, toolchain.Name+"@"+toolchain.Version+"/", goroot); err != nil {
		return nil, fmt.Errorf("unpacking %v: %w", toolchain, err)
	}
	sources, err := agentSources(b.Source)
	if err != nil {
		return nil, fmt.Errorf("reading the agent's source: %w", err)
	}
	for name, data := range sources {
		if err := writeFile(filepath.Join(src, filepath.FromSlash(name)), data, 0o644); err != nil {
			return nil, err
		}
	}
	dir, err := b.modules(ctx, goroot, src, work, []string{"GOMODCACHE=" + filepath.Join(work, "modules")})
	if err != nil {
		return nil, err
	}
	var files []inputs.File
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		below, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if below = filepath.ToSlash(below); served(below) {
			files = append(files, inputs.File{Name: inputs.Module(below), Path: name})
		}
		return nil
	})
	return files, err
}

// served says what a module proxy serves: the rest of a download folder is the go
// command's own.
func served(name string) bool {
	ext := filepath.Ext(name)
	return !strings.HasPrefix(name, "sumdb/") && (ext == ".info" || ext == ".mod" || ext == ".zip")
}
