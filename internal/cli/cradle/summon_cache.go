package cradle

import (
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/launcher/image"
)

// cacheFlags say where layers and file systems are kept for the next time.
type cacheFlags struct{ dir string }

func (f *cacheFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.dir, "cache", "auto", "folder for unpacked layers and converted images; auto is in the user's cache folder, '' keeps none")
}

// open returns no cache where none is wanted, or the user has no such folder.
func (f cacheFlags) open() (*image.Cache, error) {
	dir := f.dir
	if dir == "auto" {
		dir = "" // for a user without a folder for caches
		if user, err := os.UserCacheDir(); err == nil {
			dir = filepath.Join(user, "kattest", "images")
		}
	}
	if dir == "" {
		return nil, nil
	}
	return image.OpenCache(dir)
}
