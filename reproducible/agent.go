package reproducible

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/build"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/inputs"
	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/sandbox"
)

const (
	module       = "github.com/kraudcloud/kattest"
	agentPackage = "cmd/cradle-init"
	// toolchainModule is the module as which Go publishes its toolchains.
	toolchainModule = "golang.org/toolchain"
)

// agentBuild are the arguments of the go command that compiles the agent. It speaks
// HTTP/1.1 alone: what net/http has of HTTP/2 stays out of the trusted computing base.
var agentBuild = [...]string{
	"build", "-trimpath", "-buildvcs=false", "-tags=nethttpomithttp2", "-ldflags=-s -w -buildid=", "-o", "/build/" + stack.Agent, "./" + agentPackage,
}

// agentEnv is the environment of every go command that decides what the agent is
// made from.
var agentEnv = [...]string{
	"GOTOOLCHAIN=local",
	"GOWORK=off",
	"GOFLAGS=-mod=readonly -modcacherw",
	"GOOS=linux",
	"GOARCH=amd64",
	"GOAMD64=v1",
	"GOEXPERIMENT=",
	"CGO_ENABLED=0",
}

// hermeticEnv is what the compiling go command has besides. Modules come from
// the downloads of this machine, checked against go.sum as they are unpacked.
var hermeticEnv = [...]string{
	"GOROOT=/go",
	"GOENV=off",
	"GOPROXY=file:///proxy",
	"GOSUMDB=off",
	"GOMODCACHE=/build/modules",
	"GOCACHE=/build/cache",
	"GOPATH=/nonexistent",
	"GOTELEMETRY=off",
	"HOME=/nonexistent",
	"PATH=/nonexistent",
	"LC_ALL=C",
	"TZ=UTC",
	"SOURCE_DATE_EPOCH=0",
}

func (b *builder) agent() (artefact, error) {
	toolchain, err := b.input(lock.KindGo, toolchainModule)
	if err != nil {
		return artefact{}, err
	}
	files, err := agentSources(b.Source)
	if err != nil {
		return artefact{}, fmt.Errorf("reading the agent's source: %w", err)
	}
	return artefact{
		name:   stack.Agent,
		source: fmt.Sprintf("./%s with %s %s", agentPackage, toolchain.Name, toolchain.Version),
		key:    agentKey(toolchain, files),
		make: func(ctx context.Context, work, out string) ([]stack.Stage, error) {
			return b.makeAgent(ctx, toolchain, files, work, out)
		},
	}, nil
}

func agentKey(toolchain lock.Input, files map[string][]byte) key {
	k := newKey("agent 1")
	k.inputs("toolchain", []lock.Input{toolchain})
	k.strings("argument", agentBuild[:])
	k.strings("environment", agentEnv[:])
	k.strings("environment", hermeticEnv[:])
	for _, name := range slices.Sorted(maps.Keys(files)) {
		k.add(name, files[name])
	}
	return k
}

// agentSources returns, by their path below the checkout, the files of this
// module that the agent is made from: go.mod, go.sum, and the packages that the
// agent's reaches. Modules of others are pinned by go.sum.
func agentSources(source string) (map[string][]byte, error) {
	files := map[string][]byte{}
	if err := readInto(files, source, "go.mod", "go.sum"); err != nil {
		return nil, err
	}
	target := build.Default
	target.GOOS, target.GOARCH, target.CgoEnabled = "linux", "amd64", false
	target.BuildTags, target.ToolTags = nil, nil
	todo, seen := []string{agentPackage}, map[string]bool{agentPackage: true}
	for len(todo) > 0 {
		dir := todo[0]
		todo = todo[1:]
		pkg, err := target.ImportDir(filepath.Join(source, filepath.FromSlash(dir)), 0)
		if err != nil {
			return nil, err
		}
		for _, names := range [][]string{pkg.GoFiles, pkg.SFiles, pkg.HFiles, pkg.SysoFiles} {
			if err := readInto(files, source, under(dir, names)...); err != nil {
				return nil, err
			}
		}
		if err := readEmbedded(files, source, dir, pkg.EmbedPatterns); err != nil {
			return nil, err
		}
		for _, imported := range pkg.Imports {
			below, ours := strings.CutPrefix(imported, module+"/")
			if ours && !seen[below] {
				seen[below] = true
				todo = append(todo, below)
			}
		}
	}
	return files, nil
}

func under(dir string, names []string) []string {
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = path.Join(dir, name)
	}
	return paths
}

func readInto(files map[string][]byte, source string, names ...string) error {
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(source, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		files[name] = data
	}
	return nil
}

// readEmbedded reads what a package embeds by patterns that match plain files.
func readEmbedded(files map[string][]byte, source, dir string, patterns []string) error {
	for _, pattern := range patterns {
		matches, err := fs.Glob(os.DirFS(source), path.Join(dir, pattern))
		if err == nil && len(matches) == 0 {
			err = errors.New("matches no file")
		}
		if err == nil {
			err = readInto(files, source, matches...)
		}
		if err != nil {
			return fmt.Errorf("%s: embedding %s: %w", dir, pattern, err)
		}
	}
	return nil
}

func (b *builder) makeAgent(ctx context.Context, toolchain lock.Input, files map[string][]byte, work, out string) ([]stack.Stage, error) {
	archive, err := b.fetch.Get(ctx, toolchain)
	if err != nil {
		return nil, err
	}
	goroot, src, dir := filepath.Join(work, "go"), filepath.Join(work, "src"), filepath.Join(work, "build")
	if err := unpackToolchain(archive, toolchain.Name+"@"+toolchain.Version+"/", goroot); err != nil {
		return nil, fmt.Errorf("unpacking %v: %w", toolchain, err)
	}
	for name, data := range files {
		if err := writeFile(filepath.Join(src, filepath.FromSlash(name)), data, 0o644); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	downloads, err := b.modules(ctx, goroot, src, work, nil)
	if err != nil {
		return nil, err
	}
	var output bytes.Buffer
	err = b.run(ctx, sandbox.Command{
		Binds: []sandbox.Bind{
			{Host: goroot, Guest: "/go"},
			{Host: src, Guest: "/src"},
			{Host: downloads, Guest: "/proxy"},
			{Host: dir, Guest: "/build", Writable: true},
		},
		Dir:    "/src",
		Env:    slices.Concat(agentEnv[:], hermeticEnv[:], []string{fmt.Sprintf("GOMAXPROCS=%d", b.Jobs)}),
		Args:   append([]string{"/go/bin/go"}, agentBuild[:]...),
		Output: &output,
	})
	if err != nil {
		return nil, fmt.Errorf("%w:\n%s", err, bytes.TrimSpace(output.Bytes()))
	}
	stages, err := stagesOf(stageTree("toolchain", goroot), stageTree("source", src))
	if err != nil {
		return nil, err
	}
	return stages, os.Rename(filepath.Join(dir, stack.Agent), out)
}

// modules returns a folder of downloads that holds the modules which the agent
// needs: from an archive of inputs if one was named, and else by the go command
// with env.
func (b *builder) modules(ctx context.Context, goroot, src, work string, env []string) (string, error) {
	for _, name := range b.Folders {
		if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
			continue
		}
		archive, err := inputs.Open(name)
		if err != nil {
			return "", err
		}
		defer archive.Close()
		dir := filepath.Join(work, "proxy")
		n, err := archive.ExtractModules(dir)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if n > 0 {
			return dir, nil
		}
	}
	return downloadModules(ctx, goroot, src, env)
}

// downloadModules brings the modules that the agent needs into this machine's
// module cache, or the one that env names, by way of its own proxy, and returns
// the folder of the downloads.
func downloadModules(ctx context.Context, goroot, src string, env []string) (string, error) {
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(goroot, "bin", "go"), args...)
		cmd.Dir = src
		cmd.Env = slices.Concat(os.Environ(), agentEnv[:], []string{"GOROOT=" + goroot}, env)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("go %s: %w:\n%s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
		}
		return strings.TrimSpace(string(out)), nil
	}
	list, err := run("list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}", "./"+agentPackage)
	if err != nil {
		return "", fmt.Errorf("listing the agent's modules: %w", err)
	}
	modules := slices.Compact(slices.Sorted(slices.Values(strings.Fields(list))))
	if len(modules) > 0 {
		if _, err := run(append([]string{"mod", "download"}, modules...)...); err != nil {
			return "", fmt.Errorf("downloading the agent's modules: %w", err)
		}
	}
	modcache, err := run("env", "GOMODCACHE")
	return filepath.Join(modcache, "cache", "download"), err
}

// unpackToolchain does what the go command does when it switches to another
// toolchain: programs become executable and every _go.mod a go.mod.
func unpackToolchain(archive, prefix, goroot string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		name, ok := strings.CutPrefix(f.Name, prefix)
		if !ok || !filepath.IsLocal(name) {
			return fmt.Errorf("%q does not stand below %s", f.Name, prefix)
		}
		if strings.HasSuffix(name, "/") || unneeded(name) {
			continue
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(name, "bin/") || strings.HasPrefix(name, "pkg/tool/") {
			mode = 0o755
		}
		if dir, base := path.Split(name); base == "_go.mod" {
			name = dir + "go.mod"
		}
		data, err := readMember(f)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := writeFile(filepath.Join(goroot, filepath.FromSlash(name)), data, mode); err != nil {
			return err
		}
	}
	return nil
}

// unneeded says what of a toolchain no build reads: half of its files.
func unneeded(name string) bool {
	return strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "doc/") || strings.HasPrefix(name, "api/") ||
		strings.HasSuffix(name, "_test.go") || strings.Contains(name, "/testdata/")
}

func readMember(f *zip.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func writeFile(name string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, mode)
}
