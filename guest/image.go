package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/go-dmverity/pkg/dm"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

// Folders of the container's root file system.
const (
	imageDir = containerDir + "/image" // the EROFS image
	upperDir = containerDir + "/upper" // what the container writes: in memory, or on the scratch disk
	rootDir  = containerDir + "/root"  // the overlay of both
)

const (
	blockSize       = 4096 // bytes, of the launch spec's format
	sectorsPerBlock = blockSize / 512
)

// verityImage is the image under dm-verity.
type verityImage struct {
	control *dm.Control
	node    string
}

const verityName = "image"

func (a *agent) mountImage(ctx context.Context) error {
	disk, err := waitFor(ctx, serials, port.RootDisk)
	if err != nil {
		return err
	}
	v := a.spec.Image.Verity
	image, err := openVerity(disk, v)
	if err != nil {
		return fmt.Errorf("dm-verity: %w", err)
	}
	a.image = image
	upper, err := a.writableLayer(ctx)
	if err != nil {
		return err
	}
	if err := mountRoot(image.node, upper); err != nil {
		if image.corrupt() {
			return fmt.Errorf("dm-verity: the root disk does not hold the image that the spec names: %w", err)
		}
		return err
	}
	a.events.add(eventImage, a.spec.Image.Digest)
	a.events.add(eventRoot, v.RootHash.String())
	return nil
}

// target is the device-mapper table's one line. A block that does not fit the
// tree makes its reader's read fail with EIO and is logged; the rest of the
// image goes on. A panic instead would tell less, and prove no more: wrong data
// is never read either way.
// Source: Linux 6.12, Documentation/admin-guide/device-mapper/verity.rst.
func target(disk string, v pod.Verity) (dm.Target, error) {
	params, err := dm.BuildTargetParams(dm.OpenArgs{
		Version:        1,
		DataDevice:     disk,
		HashDevice:     disk,
		DataBlockSize:  blockSize,
		HashBlockSize:  blockSize,
		DataBlocks:     v.DataBlocks,
		HashName:       "sha256",
		RootDigest:     v.RootHash[:],
		Salt:           v.Salt[:],
		HashStartBytes: v.DataBlocks * blockSize,
	})
	if err != nil {
		return dm.Target{}, err
	}
	return dm.Target{Length: v.DataBlocks * sectorsPerBlock, Type: "verity", Params: params}, nil
}

func openVerity(disk string, v pod.Verity) (*verityImage, error) {
	t, err := target(disk, v)
	if err != nil {
		return nil, err
	}
	control, err := dm.Open()
	if err != nil {
		return nil, err
	}
	dev, err := control.CreateDevice(verityName)
	if err != nil {
		control.Close()
		return nil, err
	}
	if err := control.LoadTable(verityName, []dm.Target{t}); err != nil {
		control.Close()
		return nil, fmt.Errorf("the root disk does not fit the spec: %w", err)
	}
	if err := control.SuspendDevice(verityName, false); err != nil {
		control.Close()
		return nil, err
	}
	return &verityImage{control, fmt.Sprintf("/dev/dm-%d", unix.Minor(dev))}, nil
}

// corrupt says whether a read has failed for a wrong hash.
func (v *verityImage) corrupt() bool {
	status, err := v.control.TableStatus(verityName, false)
	return err == nil && status == "C"
}

// layer is what takes the container's writes.
type layer struct {
	mount   func(target string) error
	options string // of the overlay
}

// writableLayer is in memory, or on the scratch disk where the spec has one.
// What is there does not outlive the guest: it is never synchronised.
func (a *agent) writableLayer(ctx context.Context) (layer, error) {
	if a.spec.Scratch == nil {
		return layer{mount: func(target string) error {
			return unix.Mount("tmpfs", target, "tmpfs", unix.MS_NODEV, "mode=0700")
		}}, nil
	}
	scratch, err := openScratch(ctx, a.spec.Scratch.Size)
	if err != nil {
		return layer{}, fmt.Errorf("scratch disk: %w", err)
	}
	return layer{scratch.Mount, ",volatile"}, nil
}

// mountRoot mounts the image and, over it, an overlay that takes writes. Device
// nodes of the image mean nothing.
func mountRoot(image string, upper layer) error {
	for _, dir := range []string{imageDir, upperDir, rootDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := unix.Mount(image, imageDir, "erofs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mounting the image under dm-verity: %w", err)
	}
	if err := upper.mount(upperDir); err != nil {
		return fmt.Errorf("mounting the writable layer: %w", err)
	}
	data, work := filepath.Join(upperDir, "data"), filepath.Join(upperDir, "work")
	for _, dir := range []string{data, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	// The overlay's root is the upper layer's.
	var st unix.Stat_t
	if err := unix.Stat(imageDir, &st); err != nil {
		return fmt.Errorf("reading the image's root: %w", err)
	}
	if err := unix.Chown(data, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(data, st.Mode&0o7777); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s%s", imageDir, data, work, upper.options)
	if err := unix.Mount("overlay", rootDir, "overlay", unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mounting the overlay: %w", err)
	}
	return nil
}
