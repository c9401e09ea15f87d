package e2e

import (
	"context"
	"os"
	"path/filepath"

	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// locked unpacks a set of testdata/lock.json, and returns the beginning of a command
// line for one of its programs, with the set's own C library and those in the folders
// named. Nothing is installed.
func locked(set, program string, libraries ...string) ([]string, error) {
	l, err := lock.Load("testdata/lock.json")
	if err != nil {
		return nil, err
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	debs, err := (&fetch.Fetcher{Cache: filepath.Join(user, "kattest")}).GetAll(ctx, l.Set(set))
	if err != nil {
		return nil, err
	}
	root := filepath.Join(filepath.Dir(s.bin), set)
	if err := debian.Extract(ctx, debs, root); err != nil {
		return nil, err
	}
	lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	path := lib
	for _, folder := range libraries {
		path += ":" + filepath.Join(root, folder)
	}
	return []string{filepath.Join(lib, "ld-linux-x86-64.so.2"), "--library-path", path, filepath.Join(root, program)}, nil
}
