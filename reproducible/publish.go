package reproducible

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/measure/stack"
)

// publish makes out the boot stack: whole, or as it was before. files are the
// paths of the manifest's files in the cache.
func publish(s stack.Stack, files map[string]string, out string) error {
	if err := checkOut(out); err != nil {
		return err
	}
	if old, err := stack.Load(out); err == nil && reflect.DeepEqual(old, s) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(out), "."+filepath.Base(out)+"-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := fill(tmp, s, files); err != nil {
		return err
	}
	err = os.Rename(tmp, out)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		// The old stack takes the temporary name, and goes with it.
		err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, out, unix.RENAME_EXCHANGE)
	}
	return err
}

func fill(dir string, s stack.Stack, files map[string]string) error {
	manifest, err := s.Encode()
	if err != nil {
		return err
	}
	for _, f := range s.Files {
		if err := copyFile(files[f.Name], filepath.Join(dir, f.Name)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, stack.Manifest), manifest, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(dir, stack.Agent), 0o755); err != nil {
		return err
	}
	// What lands in out is what the manifest says, whatever the cache did.
	if _, err := stack.Load(dir); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// checkOut returns an error if out holds anything that is no boot stack.
func checkOut(out string) error {
	entries, err := os.ReadDir(out)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err == nil {
		_, err = stack.Read(out)
	}
	if err != nil {
		return fmt.Errorf("%w output: %s is not empty and holds no boot stack: %w", ErrUsage, out, err)
	}
	return nil
}
