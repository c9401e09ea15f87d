package launcher

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// LockFile stands in the VM's folder while a launcher has it to itself.
const LockFile = "lock"

// Locks are those of open file descriptions: they end with the process, whatever
// ends that, and can be asked after without being taken. A process number could
// not tell a launcher from a stranger that got its number.
// Source: fcntl(2), F_OFD_SETLK and F_OFD_GETLK.

// lockFolder takes the lock. The file is removed with its release, so it is made
// sure that the one that was locked is still the one that others will find.
func lockFolder(root *os.Root) (*os.File, error) {
	for range 100 {
		f, err := root.OpenFile(LockFile, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
			f.Close()
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
				return nil, ErrRunning
			}
			return nil, fmt.Errorf("locking: %w", err)
		}
		if sameFile(root, f) {
			return f, nil
		}
		f.Close()
	}
	return nil, errors.New("locking: the lock is removed again and again")
}

func sameFile(root *os.Root, f *os.File) bool {
	ours, errOurs := f.Stat()
	theirs, errTheirs := root.Lstat(LockFile)
	return errOurs == nil && errTheirs == nil && os.SameFile(ours, theirs)
}

// unlockFolder removes the lock and releases it.
func unlockFolder(root *os.Root, f *os.File) error {
	return errors.Join(root.Remove(LockFile), f.Close())
}

// locked says whether a launcher has the folder, without being in its way.
func locked(root *os.Root) (bool, error) {
	f, err := root.OpenFile(LockFile, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return false, fmt.Errorf("asking after the lock: %w", err)
	}
	return lock.Type != unix.F_UNLCK, nil
}

// openRoot opens a VM's folder for its owner. Where others may write, they could
// have put links there that lead elsewhere.
func openRoot(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if err := checkOwner(root); err != nil {
		root.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return root, nil
}

// ErrForeign says that a folder is another user's, or open to others.
var ErrForeign = errors.New("the folder is not this user's alone")

func checkOwner(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: it belongs to user %d, and this is user %d", ErrForeign, st.Uid, os.Geteuid())
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%w: others may write to it (mode %#o)", ErrForeign, st.Mode&0o777)
	}
	return nil
}
