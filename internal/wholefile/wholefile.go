// Package wholefile writes files that are whole, or as they were before: a reader
// never sees half of one, and neither does who comes after a crash.
package wholefile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Write makes the file hold data.
func Write(name string, data []byte, mode fs.FileMode) error {
	return Fill(name, mode, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Fill makes the file hold what fill writes. Where fill fails, its error is
// returned and nothing is changed. The file has that mode whatever the umask is.
func Fill(name string, mode fs.FileMode, fill func(io.Writer) error) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	if err := fill(temp); err != nil {
		return errors.Join(err, temp.Close())
	}
	if err := errors.Join(temp.Chmod(mode), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), name)
}
