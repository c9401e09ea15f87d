package fetch

import (
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/kraudcloud/kattest/reproducible/inputs"
)

// archives are those that were opened, by their path. They stay open as long as
// the Fetcher lives: a build reads many files of one.
type archives struct {
	mu   sync.Mutex
	open map[string]opened
}

type opened struct {
	archive *inputs.Archive // nil of a folder
	err     error
}

// file opens a file of a folder, or of the archive that stands where a folder could.
func (a *archives) file(dir, name string) (io.ReadCloser, error) {
	o := a.at(dir)
	switch {
	case o.err != nil:
		return nil, o.err
	case o.archive == nil:
		return os.Open(filepath.Join(dir, name))
	}
	r, err := o.archive.Open(filepath.ToSlash(name))
	if err != nil {
		return nil, err
	}
	return io.NopCloser(r), nil
}

func (a *archives) at(dir string) opened {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.open[dir]
	if ok {
		return o
	}
	if info, err := os.Stat(dir); err == nil && info.Mode().IsRegular() {
		o.archive, o.err = inputs.Open(dir)
	}
	if a.open == nil {
		a.open = map[string]opened{}
	}
	a.open[dir] = o
	return o
}
