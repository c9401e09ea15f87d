package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// deviceTimeout bounds the wait for a disk or a port: the kernel finds them
// while the agent runs already.
const deviceTimeout = 30 * time.Second

const maxName = 256 // bytes of a serial or a port's name

// Where the kernel shows what a host calls its devices.
const (
	serials   = "/sys/block/vd*/serial"
	portNames = "/sys/class/virtio-ports/vport*/name"
)

// waitFor returns the device node of the one device whose file, among those
// that pattern matches, says want.
func waitFor(ctx context.Context, pattern, want string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	for {
		name, err := find(pattern, want)
		if err != nil || name != "" {
			return name, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no device is called %q", want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// find returns "" if there is none yet. Two devices of one name are an error:
// which is meant must not be the host's choice.
func find(pattern, want string) (string, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	found := ""
	for _, file := range files {
		name, err := readName(file)
		if err != nil || name != want {
			continue // gone again, or another's
		}
		if found != "" {
			return "", fmt.Errorf("two devices are called %q", want)
		}
		found = "/dev/" + filepath.Base(filepath.Dir(file))
	}
	return found, nil
}

func readName(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, maxName)
	n, err := f.Read(b)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(b[:n]), "\n"), nil
}

func fields(b []byte) []string { return strings.Fields(string(b)) }

// openPort opens a virtio-serial port, such that reads and writes take deadlines.
func openPort(ctx context.Context, name string) (*os.File, error) {
	node, err := waitFor(ctx, portNames, name)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(node, os.O_RDWR|nonblock, 0)
}
