package launcher

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bridgeHelpers are where QEMU's helper is: Debian's place, then others'.
var bridgeHelpers = []string{"/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper"}

// tapFD is the tap device in QEMU: the first descriptor that it inherits.
const tapFD = 3

// openTap makes a tap device on the bridge, which is gone with its last
// descriptor. QEMU's helper does it, which may be set-uid root and asks
// /etc/qemu/bridge.conf: the launcher needs no rights. QEMU cannot call the
// helper itself, as its sandbox starts no programs.
// Source: QEMU 10.0, qemu-bridge-helper.c.
func openTap(bridge string) (*os.File, error) {
	helper, err := findHelper(bridgeHelpers)
	if err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "helper"), os.NewFile(uintptr(fds[1]), "helper")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	defer conn.Close()
	var said bytes.Buffer
	cmd := exec.Command(helper, "--use-vnet", "--fd=3", "--br="+bridge)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = &said
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", helper, err, printable(strings.TrimSpace(said.String())))
	}
	return receiveFile(conn.(*net.UnixConn), bridge)
}

func findHelper(places []string) (string, error) {
	for _, place := range places {
		if _, err := os.Stat(place); err == nil {
			return place, nil
		}
	}
	return "", fmt.Errorf("qemu-bridge-helper is at none of %s", strings.Join(places, ", "))
}

// receiveFile takes the one descriptor that was sent.
func receiveFile(conn *net.UnixConn, name string) (*os.File, error) {
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return nil, err
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, fmt.Errorf("receiving the tap device: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("receiving the tap device: the helper sent none"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("receiving the tap device: the helper sent none"), err)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), name), nil
}
