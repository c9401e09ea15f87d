// Package stack is the manifest of a boot stack: which firmware, kernel,
// initrd and command line belong together. The format is documented in
// docs/spec/stack.md.
package stack

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kraudcloud/kattest/internal/lazyre"
	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/measure"
)

// MediaType names this version of the format.
const MediaType = "application/vnd.kattest.stack.v1+json"

// Names of files in a stack's folder.
const (
	Manifest = "stack.json"
	Firmware = "OVMF.fd"
	Kernel   = "vmlinuz"
	Initrd   = "initrd.cpio"
	Agent    = "cradle-init"   // also inside the initrd
	Config   = "kernel.config" // that the kernel was compiled with
)

// maxManifest bounds stack.json, in bytes.
const maxManifest = 1 << 20

// Stack is a boot stack's manifest.
type Stack struct {
	MediaType string `json:"mediaType"`
	// Lock is the SHA-256 of the lock file, lower-case hexadecimal.
	Lock string `json:"lock"`
	// Cmdline is the kernel command line, without a trailing NUL.
	Cmdline string `json:"cmdline"`
	Files   []File `json:"files"`
}

// File is one file of a stack.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // lower-case hexadecimal
	// Source says what the file was made from.
	Source string `json:"source"`
	// Stages are what the file went through, in order: where two builds of it
	// differ, the first stage that differs says why.
	Stages []Stage `json:"stages,omitempty"`
}

// Stage is a step of a build, and the digest of what stood at its end.
type Stage struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // lower-case hexadecimal
}

var sha256RE = lazyre.New(`^[0-9a-f]{64}$`)

// Parse reads a manifest and checks its form.
func Parse(data []byte) (Stack, error) {
	var s Stack
	if err := strictjson.Decode(data, &s); err != nil {
		return Stack{}, fmt.Errorf("stack manifest: %w", err)
	}
	if err := s.check(); err != nil {
		return Stack{}, fmt.Errorf("stack manifest: %w", err)
	}
	return s, nil
}

func (s Stack) check() error {
	var errs []error
	if s.MediaType != MediaType {
		errs = append(errs, fmt.Errorf("mediaType: %q, want %q", s.MediaType, MediaType))
	}
	if !sha256RE().MatchString(s.Lock) {
		errs = append(errs, fmt.Errorf("lock: %q is not a SHA-256", s.Lock))
	}
	if strings.ContainsAny(s.Cmdline, "\x00\n") {
		errs = append(errs, errors.New("cmdline: holds a NUL or a line feed"))
	}
	seen := map[string]bool{}
	for i, f := range s.Files {
		if f.Name == "" || f.Name != filepath.Base(f.Name) || f.Name == "." || f.Name == ".." || f.Name == Manifest {
			errs = append(errs, fmt.Errorf("files[%d].name: %q is not a plain file name", i, f.Name))
		}
		if seen[f.Name] {
			errs = append(errs, fmt.Errorf("files[%d].name: %q stands twice", i, f.Name))
		}
		seen[f.Name] = true
		if f.Size < 0 {
			errs = append(errs, fmt.Errorf("files[%d].size: %d", i, f.Size))
		}
		if !sha256RE().MatchString(f.SHA256) {
			errs = append(errs, fmt.Errorf("files[%d].sha256: %q is not a SHA-256", i, f.SHA256))
		}
		if f.Stages != nil && len(f.Stages) == 0 {
			errs = append(errs, fmt.Errorf("files[%d].stages: empty", i))
		}
		for j, stage := range f.Stages {
			if stage.Name == "" {
				errs = append(errs, fmt.Errorf("files[%d].stages[%d].name: empty", i, j))
			}
			if !sha256RE().MatchString(stage.SHA256) {
				errs = append(errs, fmt.Errorf("files[%d].stages[%d].sha256: %q is not a SHA-256", i, j, stage.SHA256))
			}
		}
	}
	for _, name := range []string{Firmware, Kernel, Initrd} {
		if !seen[name] {
			errs = append(errs, fmt.Errorf("files: %s is missing", name))
		}
	}
	return errors.Join(errs...)
}

// File returns the entry with that name.
func (s Stack) File(name string) (File, bool) {
	for _, f := range s.Files {
		if f.Name == name {
			return f, true
		}
	}
	return File{}, false
}

// Encode returns the manifest as it stands in stack.json.
func (s Stack) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("stack manifest: %w", err)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// Load reads the manifest of the stack in dir, and checks size and SHA-256 of
// every file that it names. All that differ are reported together.
func Load(dir string) (Stack, error) {
	return load(dir, func([]byte) error { return nil })
}

// LoadFirmware is Load, and returns the firmware too, so that each file is read
// but once.
func LoadFirmware(dir string) (Stack, *measure.Firmware, error) {
	var fw *measure.Firmware
	s, err := load(dir, func(image []byte) error {
		var err error
		if fw, err = measure.ParseFirmware(image); err != nil {
			return fmt.Errorf("%s: %w", Firmware, err)
		}
		return nil
	})
	if err != nil {
		return Stack{}, nil, err
	}
	return s, fw, nil
}

// load checks the stack's files, and hands the firmware's image to parse.
func load(dir string, parse func(image []byte) error) (Stack, error) {
	s, err := Read(dir)
	if err != nil {
		return Stack{}, err
	}
	if err := s.verify(dir, parse); err != nil {
		return Stack{}, fmt.Errorf("boot stack %s: %w", dir, err)
	}
	return s, nil
}

// verify checks the files on all processors, the largest first.
func (s Stack) verify(dir string, parse func(image []byte) error) error {
	order := make([]int, len(s.Files))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(s.Files[b].Size, s.Files[a].Size) })
	errs := make([]error, len(s.Files))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(order)) {
		wg.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(order) {
					return
				}
				i := order[n]
				f := s.Files[i]
				if f.Name != Firmware {
					errs[i] = f.verify(dir)
					continue
				}
				image, err := f.read(dir)
				if err == nil {
					err = parse(image)
				}
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// KernelHashes are those of the stack's kernel, initrd and command line, as the
// manifest has them: of files that Load checked, the files' own.
func (s Stack) KernelHashes() (measure.KernelHashes, error) {
	var hashes [2]measure.Hash
	for i, name := range []string{Kernel, Initrd} {
		f, ok := s.File(name)
		if !ok {
			return measure.KernelHashes{}, fmt.Errorf("stack manifest: files: %s is missing", name)
		}
		var err error
		if hashes[i], err = measure.ParseHash(f.SHA256); err != nil {
			return measure.KernelHashes{}, fmt.Errorf("stack manifest: %s: %w", name, err)
		}
	}
	return measure.NewKernelHashes(hashes[0], hashes[1], s.Cmdline)
}

// Read reads the manifest of the stack in dir without looking at its files.
func Read(dir string) (Stack, error) {
	f, err := os.Open(filepath.Join(dir, Manifest))
	if err != nil {
		return Stack{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return Stack{}, err
	}
	if len(data) > maxManifest {
		return Stack{}, fmt.Errorf("stack manifest %s: more than %d bytes", f.Name(), maxManifest)
	}
	return Parse(data)
}

// Describe returns the entry for the file name in dir.
func Describe(dir, name, source string) (File, error) {
	size, sum, err := digest(filepath.Join(dir, name))
	return File{Name: name, Size: size, SHA256: sum, Source: source}, err
}

func (f File) verify(dir string) error {
	size, sum, err := digest(filepath.Join(dir, f.Name))
	if err != nil {
		return err
	}
	return f.compare(size, sum)
}

// read checks the file and returns what it holds.
func (f File) read(dir string) ([]byte, error) {
	file, err := os.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != f.Size || f.Size > measure.MaxFirmware {
		return nil, f.compare(info.Size(), f.SHA256)
	}
	b := make([]byte, f.Size)
	if _, err := io.ReadFull(file, b); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	return b, f.compare(f.Size, measure.Hash(sha256.Sum256(b)).String())
}

func (f File) compare(size int64, sum string) error {
	switch {
	case size != f.Size:
		return fmt.Errorf("%s: %d bytes, the manifest says %d", f.Name, size, f.Size)
	case sum != f.SHA256:
		return fmt.Errorf("%s: SHA-256 %s, the manifest says %s", f.Name, sum, f.SHA256)
	case f.Name == Firmware && size > measure.MaxFirmware:
		return fmt.Errorf("%s: %d bytes, more than %d", f.Name, size, measure.MaxFirmware)
	}
	return nil
}

func digest(name string) (int64, string, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	counted := &counter{r: f}
	sum, err := measure.HashOf(counted)
	return counted.n, sum.String(), err
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}
