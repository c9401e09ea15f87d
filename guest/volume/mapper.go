package volume

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/containerd/go-dmverity/pkg/dm"
	"golang.org/x/sys/unix"
)

// mapper makes devices of the device mapper. The module that makes dm-verity's
// loads tables for reading alone, so that tables are loaded here.
type mapper struct{ *dm.Control }

// add makes a device of that name, and returns its node.
func (m mapper) add(name string, lines []line) (string, error) {
	dev, err := m.CreateDevice(name)
	if err != nil {
		return "", err
	}
	if err := loadTable(name, lines); err != nil {
		_ = m.RemoveDevice(name) // the error is the table's
		return "", err
	}
	if err := m.SuspendDevice(name, false); err != nil {
		_ = m.RemoveDevice(name) // as above
		return "", err
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(dev)), nil
}

// Layouts of the device mapper's ioctl.
// Source: Linux 6.12, include/uapi/linux/dm-ioctl.h.
const (
	tableLoad      = 0xc138fd09 // _IOWR(0xfd, 9, struct dm_ioctl)
	headSize       = 312        // struct dm_ioctl
	specSize       = 40         // struct dm_target_spec
	secureDataFlag = 1 << 15    // the kernel wipes its copy, which holds keys
)

// loadTable loads the table of a device that is there.
//
//	offset  size  field
//	0x00    12    version of the interface: 4.0.0
//	0x0c    4     size of head and lines
//	0x10    4     where the lines begin
//	0x14    4     number of lines
//	0x1c    4     flags
//	0x30    128   name
//	312     …     lines: first sector (8), sectors (8), status (4), where the
//	              next begins (4), target (16), parameters and a NUL
func loadTable(name string, lines []line) error {
	b := make([]byte, headSize)
	le.PutUint32(b[0x00:], 4)
	le.PutUint32(b[0x10:], headSize)
	le.PutUint32(b[0x14:], uint32(len(lines)))
	le.PutUint32(b[0x1c:], secureDataFlag)
	copy(b[0x30:0x30+127], name)
	start := uint64(0)
	for _, l := range lines {
		spec := make([]byte, specSize, specSize+len(l.params)+8)
		size := (specSize + len(l.params) + 1 + 7) / 8 * 8
		le.PutUint64(spec[0x00:], start)
		le.PutUint64(spec[0x08:], l.sectors)
		le.PutUint32(spec[0x14:], uint32(size))
		copy(spec[0x18:0x18+15], l.target)
		spec = append(spec, l.params...)
		b = append(b, append(spec, make([]byte, size-len(spec))...)...)
		start += l.sectors
	}
	le.PutUint32(b[0x0c:], uint32(len(b)))
	defer clear(b)
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), tableLoad, uintptr(unsafe.Pointer(&b[0])))
	runtime.KeepAlive(b)
	if errno != 0 {
		return fmt.Errorf("loading the table of %s: %w", name, errno)
	}
	return nil
}
