// Volumes is the first process of the guests in which package guest/volume is
// tried on the real kernel: it does to one disk what its arguments say, and
// says on the console how that ended.
//
// Arguments: what to do, the secret's letter, the volume's name, the size in MiB.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/volume"
)

const (
	mountPoint = "/mnt"
	content    = mountPoint + "/content"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "volumes: error: not process number 1")
		os.Exit(2)
	}
	err := run(os.Args[1:])
	if err == nil {
		fmt.Println("result: done")
	} else {
		fmt.Printf("result: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	time.Sleep(100 * time.Millisecond) // for the console
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("arguments %q", args)
	}
	for dir, fstype := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount(fstype, dir, fstype, 0, "")); err != nil {
			return err
		}
	}
	what, secret, name := args[0], bytes.Repeat([]byte(args[1]), volume.MinSecret), args[2]
	mib, err := strconv.ParseUint(args[3], 10, 64)
	if err != nil {
		return err
	}
	keys, err := volume.NewKeys(secret, name)
	if err != nil {
		return err
	}
	nodes, err := filepath.Glob("/dev/vd?")
	if err != nil || len(nodes) != 1 {
		return fmt.Errorf("disks %q: %w", nodes, err)
	}
	d := volume.Disk{Name: name, Node: nodes[0], Size: mib << 20, Kind: volume.Persistent, Slot: 3, Keys: keys}
	do := map[string]func(volume.Disk) error{
		"create": create, "read": read, "crash": crash, "ephemeral": ephemeral,
	}[what]
	if do == nil {
		return fmt.Errorf("unknown %q", what)
	}
	return do(d)
}

// with runs f while the volume is mounted.
func with(v *volume.Volume, err error, f func() error) error {
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(mountPoint, 0o755), v.Mount(mountPoint)); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	if err := unix.Unmount(mountPoint, 0); err != nil {
		return err
	}
	return v.Close()
}

func create(d volume.Disk) error {
	v, err := volume.Create(d)
	return with(v, err, write)
}

func read(d volume.Disk) error {
	v, err := volume.Open(d)
	return with(v, err, check)
}

func ephemeral(d volume.Disk) error {
	d.Kind = volume.Ephemeral
	v, err := volume.Create(d)
	return with(v, err, func() error { return errors.Join(write(), check()) })
}

// crash writes, and waits for its end.
func crash(d volume.Disk) error {
	v, err := volume.Open(d)
	return with(v, err, func() error {
		if err := check(); err != nil {
			return err
		}
		for i := 0; ; i++ {
			if err := writeFile(fmt.Sprintf("%s/more%d", mountPoint, i%8), 1<<20); err != nil {
				return err
			}
			fmt.Printf("wrote %d\n", i)
		}
	})
}

const fileSize = 4 << 20

// pattern tells each block from every other.
func pattern(size int) []byte {
	b := make([]byte, 0, size)
	for i := 0; len(b) < size; i++ {
		b = fmt.Appendf(b, "plaintext %020d\n", i)
	}
	return b[:size]
}

func write() error { return writeFile(content, fileSize) }

func writeFile(name string, size int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(pattern(size))
	return errors.Join(err, f.Sync(), f.Close())
}

// check reads everything, past what the kernel has kept.
func check() error {
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return err
	}
	entries, err := os.ReadDir(mountPoint)
	if err != nil {
		return err
	}
	for _, e := range entries {
		got, err := os.ReadFile(filepath.Join(mountPoint, e.Name()))
		if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		if e.Name() == filepath.Base(content) && len(got) != fileSize {
			return fmt.Errorf("%s has %d bytes", e.Name(), len(got))
		}
		if !bytes.Equal(got, pattern(len(got))) {
			return fmt.Errorf("%s: WRONG DATA", e.Name())
		}
	}
	return nil
}
