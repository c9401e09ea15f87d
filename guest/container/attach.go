package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// Mount is a mount of the spec's, as the container gets it.
type Mount struct {
	pod.Mount
	// From is where the agent has mounted it. A tmpfs is made in the container.
	From string `json:"from"`
	File bool   `json:"file"` // it is a file, and no folder
}

// attached is a mount that is in no place yet.
type attached struct {
	Mount
	fd int // none for a tmpfs
}

// openMounts takes what the agent has mounted, before it is out of sight.
func openMounts(mounts []Mount) ([]attached, error) {
	var all []attached
	for _, m := range mounts {
		a := attached{Mount: m, fd: -1}
		if m.Type != pod.MountTmpfs {
			fd, err := unix.OpenTree(unix.AT_FDCWD, m.From, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.Target, err)
			}
			a.fd = fd
		}
		all = append(all, a)
	}
	return all, nil
}

// attachMounts puts them where the spec says, in its order. The root is the
// container's already: links of the image lead nowhere else.
func attachMounts(all []attached) error {
	for _, a := range all {
		if err := a.attach(); err != nil {
			return fmt.Errorf("%s: %w", a.Target, err)
		}
	}
	return nil
}

func (a attached) attach() error {
	if err := a.makeTarget(); err != nil {
		return err
	}
	if a.Type == pod.MountTmpfs {
		return a.mountTmpfs()
	}
	defer unix.Close(a.fd)
	var covered unix.Stat_t
	if err := unix.Stat(a.Target, &covered); err != nil {
		return err
	}
	if err := unix.MoveMount(a.fd, "", unix.AT_FDCWD, a.Target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return err
	}
	if a.Type == pod.MountVolume {
		if err := inherit(a.Target, covered); err != nil {
			return err
		}
	}
	if !a.ReadOnly {
		return nil
	}
	return unix.MountSetattr(a.fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// makeTarget makes the place of a mount, where the image has none.
func (a attached) makeTarget() error {
	if !a.File {
		return os.MkdirAll(a.Target, 0o755)
	}
	if err := os.MkdirAll(path.Dir(a.Target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(a.Target, os.O_CREATE|os.O_RDONLY|unix.O_NONBLOCK, 0o400)
	if err != nil {
		return err
	}
	return f.Close()
}

// inherit gives a volume that holds nothing the owner and mode of the folder
// that it covers, as docker does.
func inherit(dir string, covered unix.Stat_t) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err == nil {
		return nil
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	if err := f.Chown(int(covered.Uid), int(covered.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(int(f.Fd()), covered.Mode&0o7777)
}

func (a attached) mountTmpfs() error {
	mode := a.Mode
	if mode == "" {
		mode = "1777"
	}
	data := "mode=" + mode
	if a.Size > 0 {
		data += ",size=" + strconv.FormatUint(a.Size, 10)
	}
	flags := uintptr(fenced)
	if a.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount("tmpfs", a.Target, "tmpfs", flags, data)
}
