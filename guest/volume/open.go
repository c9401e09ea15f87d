package volume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"github.com/containerd/go-dmverity/pkg/dm"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/ext4"
)

// Memory is the node of the RAM disk that holds the superblocks, one behind the
// other. They are never on the host's disk.
const Memory = "/dev/ram0"

// Errors of Open and Create.
var (
	// ErrUnreadable is of a volume whose first block is not this key's.
	ErrUnreadable = errors.New("its first block is not one that this key has written: another key, a blank disk or a damaged one")
	// ErrNotBlank is of a disk that is to be formatted but holds something.
	ErrNotBlank = errors.New("it is to be formatted but is not blank")
	// ErrSize is of a disk that has another size than the launch spec gives.
	ErrSize = errors.New("the disk has another size than the spec says")
)

// Disk is a disk of the host's, and what it is to be.
type Disk struct {
	Name string // of the volume, for the device mapper's names too
	Node string // such as /dev/vdc
	Size uint64 // bytes, as the launch spec says
	Kind Kind
	Slot int // the number of the superblock's place in Memory
	Keys Keys
}

// Volume is an open volume.
type Volume struct {
	Node    string // what has the file system
	mapper  mapper
	devices []string // in the order in which they were made
}

// Open opens a volume that Create made with the same keys.
func Open(d Disk) (*Volume, error) {
	v, err := d.open(false)
	if err != nil {
		return nil, d.wrap(err)
	}
	if err := readBlock(v.Node); err != nil {
		return nil, d.wrap(errors.Join(ErrUnreadable, err, v.Close()))
	}
	return v, nil
}

// Create formats a disk: an empty file system under new keys. A disk that will
// not be opened again may hold anything; a persistent one must be blank where
// an earlier volume would have left something.
func Create(d Disk) (*Volume, error) {
	if d.Kind == Persistent {
		if err := checkBlank(d.Node); err != nil {
			return nil, d.wrap(err)
		}
	}
	v, err := d.open(true)
	if err != nil {
		return nil, d.wrap(err)
	}
	if err := v.format(d); err != nil {
		return nil, d.wrap(errors.Join(err, v.Close()))
	}
	return v, nil
}

func (d Disk) wrap(err error) error { return fmt.Errorf("volume %q: %w", d.Name, err) }

func (d Disk) open(blank bool) (*Volume, error) {
	g, err := newGeometry(d.Size, d.Kind)
	if err != nil {
		return nil, err
	}
	if size, err := deviceSize(d.Node); err != nil {
		return nil, err
	} else if size != d.Size {
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrSize, size, d.Size)
	}
	// Of zeros the kernel makes a superblock and an empty journal.
	superblock := g.superblock()
	if blank {
		clear(superblock)
	}
	if err := d.superblock(superblock, unix.O_WRONLY); err != nil {
		return nil, err
	}
	control, err := dm.Open()
	if err != nil {
		return nil, err
	}
	v := &Volume{mapper: mapper{control}}
	v.Node = d.Node
	for _, layer := range []struct {
		name  string
		lines func(below string) []line
	}{
		{"disk", func(below string) []line { return g.joined(Memory, uint64(d.Slot)*superblockSectors, below) }},
		{"integrity", func(below string) []line { return g.integrity(below, &d.Keys) }},
		{"crypt", func(below string) []line { return g.crypt(below, &d.Keys) }},
	} {
		name := d.Name + "-" + layer.name
		node, err := v.mapper.add(name, layer.lines(v.Node))
		if err != nil {
			return nil, errors.Join(err, v.Close())
		}
		v.Node = node
		v.devices = append(v.devices, name)
	}
	if blank {
		if err := d.compare(g); err != nil {
			return nil, errors.Join(err, v.Close())
		}
	}
	return v, nil
}

// compare wants the superblock that the kernel has made to be ours: if it were
// not, the volume could not be opened again.
func (d Disk) compare(g geometry) error {
	got := make([]byte, superblockSectors*512)
	if err := d.superblock(got, unix.O_RDONLY); err != nil {
		return err
	}
	if want := g.superblock(); !bytes.Equal(got, want) {
		return fmt.Errorf("dm-integrity's superblock: [0:32]: got %x, want %x", got[:32], want[:32])
	}
	return nil
}

// superblock writes b to the volume's place in Memory, or reads it from there,
// past the page cache: the kernel's driver does not look into that.
func (d Disk) superblock(b []byte, flag int) error {
	f, err := os.OpenFile(Memory, flag|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	page := aligned()
	at := int64(d.Slot) * superblockSectors * 512
	if flag == unix.O_RDONLY {
		if _, err := f.ReadAt(page, at); err != nil {
			return fmt.Errorf("reading the superblock in memory: %w", err)
		}
		copy(b, page)
		return nil
	}
	copy(page, b)
	if _, err := f.WriteAt(page, at); err != nil {
		return fmt.Errorf("writing the superblock in memory: %w", err)
	}
	return nil
}

func (v *Volume) format(d Disk) error {
	f, err := os.OpenFile(v.Node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := deviceSize(v.Node)
	if err != nil {
		return err
	}
	return ext4.Format(f, size, ext4.Options{UUID: d.Keys.UUID, Journal: d.Kind == Persistent}, f.Sync)
}

// Close writes what is to be written and gives the disk back. The file system
// must not be mounted any more: until then the error is EBUSY, and Close may be
// called again.
func (v *Volume) Close() error {
	for n := len(v.devices); n > 0; n-- {
		if err := v.mapper.RemoveDevice(v.devices[n-1]); err != nil {
			return err
		}
		v.devices = v.devices[:n-1]
	}
	return v.mapper.Close()
}

// readBlock reads the first block, which no one has read before, and no other:
// most have never been written, and have no tag.
func readBlock(node string) error {
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.ReadFull(f, aligned())
	return err
}

// blankSize covers dm-integrity's journal and the first blocks, in bytes.
const blankSize = 16 << 20

func checkBlank(node string) error {
	f, err := os.Open(node)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	for at := 0; at < blankSize; at += len(b) {
		if _, err := io.ReadFull(f, b); err != nil {
			return err
		}
		for i, c := range b {
			if c != 0 {
				return fmt.Errorf("%w: byte %d is %#02x", ErrNotBlank, at+i, c)
			}
		}
	}
	return nil
}

// deviceSize is a block device's size in bytes.
func deviceSize(node string) (uint64, error) {
	f, err := os.Open(node)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.Seek(0, io.SeekEnd)
	return uint64(n), err
}

// aligned returns a block of memory that begins where O_DIRECT wants it.
func aligned() []byte {
	b := make([]byte, 2*BlockSize)
	skip := -uintptr(unsafe.Pointer(&b[0])) % BlockSize
	return b[skip:][:BlockSize]
}

var le = binary.LittleEndian
