package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kraudcloud/kattest/launcher/vm"
)

// ErrKept says that a folder holds files that are no VM's.
var ErrKept = errors.New("other files are in the folder")

// VolumesDir is where summon puts the disks of volumes.
const VolumesDir = "volumes"

// Remove removes a VM's folder, which no launcher may have. Only what summon and
// run put there is removed, the disks of volumes only where volumes says so; then
// the folder itself, if nothing is left in it. Where volumes are left, kept is
// their folder; where anything else is, the error wraps ErrKept.
func Remove(dir string, volumes bool) (kept string, err error) {
	root, err := openRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if info, err := root.Lstat(vm.ConfigFile); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: not a VM's folder: no %s", dir, vm.ConfigFile)
	}
	lock, err := lockFolder(root)
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	defer lock.Close()
	names := []string{
		StateFile, EndFile, ConsoleFile, OutputFile, oldOutputFile, runDir, vm.StackDir, vm.RootFile, vm.SpecFile,
		vm.ConfigFile, LockFile, // last: without them no one can try again
	}
	if volumes {
		names = append([]string{VolumesDir}, names...)
	}
	for _, name := range names {
		if err := root.RemoveAll(name); err != nil { // follows no link
			return "", fmt.Errorf("%s: %w", dir, err)
		}
	}
	entries, err := os.ReadDir(dir)
	switch {
	case err != nil:
		return "", err
	case len(entries) == 0:
		return "", removeEmpty(dir)
	case len(entries) == 1 && entries[0].Name() == VolumesDir && entries[0].IsDir():
		return filepath.Join(dir, VolumesDir), nil
	}
	return "", fmt.Errorf("%s: %w: %s", dir, ErrKept, entries[0].Name())
}

func removeEmpty(dir string) error {
	// The name may be a link to the folder, which then stays.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if err := os.Remove(real); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
