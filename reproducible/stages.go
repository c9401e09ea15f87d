package reproducible

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/kraudcloud/kattest/measure/stack"
)

// stage computes the digest of one stage.
type stage func() (stack.Stage, error)

// stagesOf computes the digests of stages.
func stagesOf(all ...stage) ([]stack.Stage, error) {
	var done []stack.Stage
	for _, one := range all {
		s, err := one()
		if err != nil {
			return nil, err
		}
		done = append(done, s)
	}
	return done, nil
}

// stageFile is a stage that ends in one file.
func stageFile(name, file string) stage {
	return func() (stack.Stage, error) {
		sum, err := fileSum(file)
		return stack.Stage{Name: name, SHA256: sum}, err
	}
}

// stageTree is a stage that ends in a folder: names, what may be executed, where
// links lead and what files hold, in the order of their names. Owners, times and
// who may read are the builder's.
func stageTree(name, dir string) stage {
	return func() (stack.Stage, error) {
		k := key{sha256.New()}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return stack.Stage{}, err
		}
		defer root.Close()
		err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return addNode(k, filepath.Join(dir, path), path, d)
		})
		return stack.Stage{Name: name, SHA256: hex.EncodeToString(k.h.Sum(nil))}, err
	}
}

func addNode(k key, file, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	k.strings("node", []string{path, info.Mode().Type().String(), strconv.FormatBool(info.Mode()&0o100 != 0)})
	switch {
	case info.Mode().Type() == fs.ModeSymlink:
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		k.add("target", []byte(target))
	case info.Mode().IsRegular():
		sum, err := fileSum(file)
		if err != nil {
			return err
		}
		k.add("sha256", []byte(sum))
	}
	return nil
}
