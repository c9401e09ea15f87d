package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/guest/volume"
)

// mountsDir is where the agent mounts what the container gets, each by its
// number in the spec.
const mountsDir = containerDir + "/mounts"

// mounted is what has to be taken down at the end.
type mounted struct {
	dir    string
	volume *volume.Volume // nil for NFS
}

// mountAll mounts the spec's volumes and NFS exports. The container's init puts
// them in their places, and makes a tmpfs itself.
func (a *agent) mountAll(ctx context.Context) error {
	slot := scratchSlot
	for i, m := range a.spec.Mounts {
		dir := filepath.Join(mountsDir, strconv.Itoa(i))
		switch m.Type {
		case pod.MountTmpfs:
			dir = ""
		case pod.MountVolume:
			slot++
			if err := a.mountVolume(ctx, m, slot, dir); err != nil {
				return err
			}
		case pod.MountNFS:
			if err := a.mountNFS(ctx, m, dir); err != nil {
				return err
			}
		default:
			return fmt.Errorf("mounts[%d]: unknown type %q", i, m.Type)
		}
		a.mounts = append(a.mounts, container.Mount{Mount: m, From: dir})
	}
	return nil
}

func (a *agent) mountVolume(ctx context.Context, m pod.Mount, slot int, dir string) error {
	v, err := a.openVolume(ctx, m, slot)
	if err != nil {
		return err
	}
	a.mounted = append(a.mounted, mounted{dir, v})
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := v.Mount(dir); err != nil {
		return fmt.Errorf("volume %q: %w", m.Name, err)
	}
	a.events.add(eventVolume, m.Name)
	return nil
}

// openVolume never makes a volume of a blank disk unless its owner has said so
// to this guest: to the host's order alone the workload would begin anew.
func (a *agent) openVolume(ctx context.Context, m pod.Mount, slot int) (*volume.Volume, error) {
	node, err := waitFor(ctx, serials, port.VolumeDisk(m.Name))
	if err != nil {
		return nil, err
	}
	secret, ok := a.secrets[m.Key]
	if !ok {
		return nil, fmt.Errorf("volume %q: secret %q: missing", m.Name, m.Key)
	}
	keys, err := volume.NewKeys(secret.Value, m.Name)
	if err != nil {
		return nil, fmt.Errorf("volume %q: %w", m.Name, err)
	}
	disk := volume.Disk{
		Name: port.VolumeDisk(m.Name), Node: node, Size: m.Size, Kind: volume.Persistent, Slot: slot, Keys: keys,
	}
	if !secret.Format {
		return volume.Open(disk)
	}
	a.log.Info("making a new volume", "name", m.Name)
	v, err := volume.Create(disk)
	if err == nil {
		a.events.add(eventFormatted, m.Name)
	}
	return v, err
}

// closeTimeout bounds how long the guest's end waits for its disks.
const closeTimeout = 30 * time.Second

// unmountAll writes out and closes what is mounted, when the container has
// ended. What could not be closed is as after a crash.
func (a *agent) unmountAll() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.unmountEach(time.Now().Add(closeTimeout))
	}()
	select {
	case <-done:
	case <-time.After(closeTimeout + time.Second): // a server that does not answer
		a.log.Error("closing what is mounted takes too long")
	}
}

func (a *agent) unmountEach(deadline time.Time) {
	for _, m := range slices.Backward(a.mounted) {
		err := retry(deadline, func() error { return unmount(m.dir) })
		if m.volume != nil {
			// The container's mounts go a moment after its processes.
			err = errors.Join(err, retry(deadline, m.volume.Close))
		}
		if err != nil {
			a.log.Error("closing", "mount", m.dir, "error", err)
		}
	}
	a.mounted = nil
}

// unmount takes what is not mounted for unmounted.
func unmount(dir string) error {
	err := unix.Unmount(dir, 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// retry repeats f while something is busy.
func retry(deadline time.Time, f func() error) error {
	for {
		err := f()
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
