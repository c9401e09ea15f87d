package vm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kraudcloud/kattest/guest/pod"
)

// Volume is a disk of the host's for one of the spec's volumes: a file, or a
// block device. Nothing of the host's can read it.
type Volume struct {
	Name string `json:"name"`
	File string `json:"file"` // from the VM's folder on
}

// VolumeFile returns the file of the volume of that name, and "" if there is none.
func (c Config) VolumeFile(name string) string {
	for _, v := range c.Volumes {
		if v.Name == name {
			return v.File
		}
	}
	return ""
}

func (c Config) checkVolumes(bad func(format string, args ...any)) {
	names, files := map[string]bool{}, map[string]bool{}
	for i, v := range c.Volumes {
		switch {
		case v.Name == "" || v.File == "" || strings.ContainsAny(v.File, "\x00\n"):
			bad("volumes[%d]: name %q and file %q: one is missing, or no file's name", i, v.Name, v.File)
		case names[v.Name]:
			bad("volumes[%d].name: %q stands twice", i, v.Name)
		case files[filepath.Clean(v.File)]:
			bad("volumes[%d].file: %q stands twice", i, v.File)
		}
		names[v.Name], files[filepath.Clean(v.File)] = true, true
	}
}

// VolumePath returns the path of the disk of the volume of that name, and ""
// if there is none.
func (v *VM) VolumePath(name string) string { return volumePath(v.Dir, v.Config.VolumeFile(name)) }

func volumePath(dir, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// makeVolumes makes the disks of the spec's volumes that are not there, in dir
// or where they are to be. A disk that is there is left as it is: it may hold data.
func makeVolumes(dir string, config Config, spec pod.Spec) error {
	for _, m := range spec.Volumes() {
		file := volumePath(dir, config.VolumeFile(m.Name))
		if file == "" {
			return fmt.Errorf("volume %q: %s names no file for it", m.Name, ConfigFile)
		}
		if _, err := os.Stat(file); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := MakeDisk(file, m.Size); err != nil {
			return err
		}
	}
	return nil
}

// MakeDisk makes a new sparse file of size bytes.
func MakeDisk(name string, size uint64) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(int64(size)), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// checkVolumes wants each of the spec's volumes to have a disk of its size.
func (v *VM) checkVolumes() error {
	for _, m := range v.Spec.Volumes() {
		file := v.VolumePath(m.Name)
		if file == "" {
			return fmt.Errorf("volume %q: %s names no file for it", m.Name, ConfigFile)
		}
		size, err := diskSize(file)
		if err != nil {
			return fmt.Errorf("volume %q: %w", m.Name, err)
		}
		if size != m.Size {
			return fmt.Errorf("volume %q: %s has %d bytes, the spec says %d", m.Name, file, size, m.Size)
		}
	}
	return nil
}

// diskSize is the size of a regular file or a block device.
func diskSize(name string) (uint64, error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	// Opening a pipe would wait for its writer.
	if mode := info.Mode(); !mode.IsRegular() && mode.Type() != fs.ModeDevice {
		return 0, fmt.Errorf("%s: neither a regular file nor a block device", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.Seek(0, io.SeekEnd)
	return uint64(n), err
}
