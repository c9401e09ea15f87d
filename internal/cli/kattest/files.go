package kattest

import (
	"errors"
	"os"
	"path/filepath"
)

// writeAtomic writes a file that is either whole or not there.
func writeAtomic(name string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".kattest-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// writeNew writes a file that does not exist yet.
func writeNew(name string, data []byte) error { return create(name, data, 0o644) }

// writePrivate is writeNew for what others must not read.
func writePrivate(name string, data []byte) error { return create(name, data, 0o600) }

func create(name string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
