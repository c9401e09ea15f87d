package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// fetched brings a set of testdata/lock.json from the cache that kattest build uses,
// from the folders of KATTEST_INPUTS, or from this machine's mirrors.
func fetched(ctx context.Context, set string) (debs []string, err error) {
	l, err := lock.Load("testdata/lock.json")
	if err != nil {
		return nil, err
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	inputs := l.Set(set)
	if len(inputs) == 0 {
		return nil, fmt.Errorf("testdata/lock.json has no set %s", set)
	}
	f := &fetch.Fetcher{Cache: filepath.Join(user, "kattest"), Folders: filepath.SplitList(os.Getenv("KATTEST_INPUTS"))}
	return f.GetAll(ctx, inputs)
}

// locked unpacks a set of testdata/lock.json, and returns the beginning of a command
// line for one of its programs, with the set's own C library and those in the folders
// named. Nothing is installed.
func locked(set, program string, libraries ...string) ([]string, error) {
	ctx := context.Background()
	debs, err := fetched(ctx, set)
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
