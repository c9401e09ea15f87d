// Package vm is the folder that holds one guest: its launch spec, its root
// file system, its boot stack and the machine to run it on. The format is
// documented in docs/spec/vm-folder.md.
//
// Open checks form, sizes and the boot stack's hashes. It does not check the
// root file system against its root hash: the guest does, block by block.
package vm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/measure/stack"
)

// Names of files in the folder.
const (
	SpecFile = "spec.json" // the launch spec, canonical
	RootFile = "root.img"  // EROFS data, then the dm-verity tree
	StackDir = "stack"     // symbolic links to the boot stack's files

	ConfigFile = "vm.json" // the machine
)

// BlockSize is the unit of root.img, in bytes.
const BlockSize = 4096

// maxConfig bounds vm.json, in bytes.
const maxConfig = 1 << 20

// VM is a guest's folder.
type VM struct {
	Dir    string
	Config Config
	Spec   pod.Spec
	// SpecBytes is spec.json as it stands in the folder: what the guest is handed.
	SpecBytes []byte
	Stack     stack.Stack
}

// Root returns the path of the root file system.
func (v *VM) Root() string { return filepath.Join(v.Dir, RootFile) }

// StackFile returns the path of a file of the boot stack, such as stack.Kernel.
func (v *VM) StackFile(name string) string { return filepath.Join(v.Dir, StackDir, name) }

// Create makes the folder dir, which must not exist or be empty. Write fills
// root.img and returns the spec that fits it. The boot stack in stackDir is
// linked to, not copied. The folder appears whole, or not at all; it is
// readable for its owner alone, as the spec's environment may hold passwords.
func Create(dir string, config Config, stackDir string, write func(root *os.File) (pod.Spec, error)) (err error) {
	if err := CheckVacant(dir); err != nil {
		return err
	}
	vmJSON, err := config.Encode()
	if err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	if err := linkStack(stackDir, filepath.Join(temp, StackDir)); err != nil {
		return err
	}
	spec, err := writeRoot(filepath.Join(temp, RootFile), write)
	if err != nil {
		return err
	}
	specJSON, err := spec.Canonical()
	if err != nil {
		return err
	}
	if err := makeVolumes(temp, config, spec); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, SpecFile), specJSON, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, ConfigFile), vmJSON, 0o600); err != nil {
		return err
	}
	if _, err := Open(temp); err != nil {
		return err
	}
	// rename(2) takes the place of an empty folder and refuses any other;
	// os.Rename refuses both.
	if err := syscall.Rename(temp, dir); err != nil {
		return &os.LinkError{Op: "rename", Old: temp, New: dir, Err: err}
	}
	return nil
}

// CheckVacant says why Create would refuse dir: it exists and is not an empty folder.
func CheckVacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s: %w and is not empty", dir, fs.ErrExist)
	}
	return nil
}

func writeRoot(name string, write func(*os.File) (pod.Spec, error)) (pod.Spec, error) {
	root, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return pod.Spec{}, err
	}
	spec, err := write(root)
	if err := errors.Join(err, root.Close()); err != nil {
		return pod.Spec{}, err
	}
	return spec, nil
}

// linkStack links every file that the manifest in from names, and the manifest.
func linkStack(from, to string) error {
	from, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	s, err := stack.Read(from)
	if err != nil {
		return fmt.Errorf("boot stack: %w", err)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	names := []string{stack.Manifest}
	for _, f := range s.Files {
		names = append(names, f.Name)
	}
	for _, name := range names {
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// Open reads the folder dir and checks all of it: vm.json's values, that the
// spec is sound and canonical, the sizes of root.img and of volumes' disks against
// the spec, and the boot stack's files against its manifest.
func Open(dir string) (*VM, error) {
	v, err := Read(dir)
	if err != nil {
		return nil, err
	}
	if v.Spec, err = pod.Parse(v.SpecBytes); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, SpecFile), err)
	}
	info, err := os.Stat(v.Root())
	if err != nil {
		return nil, err
	}
	if want := RootSize(v.Spec.Image.Verity.DataBlocks); !info.Mode().IsRegular() || info.Size() != want {
		return nil, fmt.Errorf("%s: %d bytes, want a file of %d for image.verity.dataBlocks %d",
			v.Root(), info.Size(), want, v.Spec.Image.Verity.DataBlocks)
	}
	if err := v.checkVolumes(); err != nil {
		return nil, err
	}
	if _, err := stack.Load(filepath.Join(dir, StackDir)); err != nil {
		return nil, err
	}
	return v, nil
}

// Read reads the folder dir as it stands, so that a test can boot a broken one
// and see the guest refuse it. It checks vm.json and the boot stack's manifest.
// It does not check root.img, the boot stack's files or the spec: Spec holds
// what of spec.json can be read, which may be nothing.
func Read(dir string) (*VM, error) {
	data, err := readFile(filepath.Join(dir, ConfigFile), maxConfig)
	if err != nil {
		return nil, err
	}
	config, err := ParseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	spec, err := readFile(filepath.Join(dir, SpecFile), pod.MaxSize)
	if err != nil {
		return nil, err
	}
	s, err := stack.Read(filepath.Join(dir, StackDir))
	if err != nil {
		return nil, err
	}
	v := &VM{Dir: dir, Config: config, SpecBytes: spec, Stack: s}
	if json.Unmarshal(spec, &v.Spec) != nil {
		v.Spec = pod.Spec{}
	}
	return v, nil
}

// readFile reads a regular file of at most limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its writer
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return b.Bytes(), nil
}

// RootSize returns the size of root.img in bytes: dataBlocks blocks of 4096
// bytes, and the levels of the dm-verity tree above them, 128 digests a block.
// A single data block has no tree: its digest is the root hash.
// Source: Linux 6.12, drivers/md/dm-verity-target.c, verity_ctr.
func RootSize(dataBlocks uint64) int64 {
	const perBlock = BlockSize / 32
	total := dataBlocks
	for n := dataBlocks; n > 1; {
		n = (n + perBlock - 1) / perBlock
		total += n
	}
	return int64(total) * BlockSize
}
