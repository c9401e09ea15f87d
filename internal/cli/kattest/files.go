package kattest

import (
	"errors"
	"os"
)

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
