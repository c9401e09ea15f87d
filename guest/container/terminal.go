package container

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// socketPair makes two ends of a socket over which descriptors pass.
func socketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console"), nil
}

// receiveFile takes the one descriptor that has been sent already.
func receiveFile(socket *os.File) (int, error) {
	data, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), data, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return 0, err
	}
	if len(messages) != 1 {
		return 0, errors.New("no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	if len(fds) != 1 {
		return 0, fmt.Errorf("%d descriptors came", len(fds))
	}
	return fds[0], nil
}

// openTerminal makes a terminal of the container's own, whose other end it sends to
// the agent, and makes it the standard streams.
func openTerminal() error {
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(master)
	// What the workload may have put there is no terminal.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(master, &fs); err != nil {
		return err
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return errors.New("/dev/pts/ptmx is not on devpts")
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlocking: %w", err)
	}
	// By the master and not by its name: no path leads astray.
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return fmt.Errorf("opening: %w", errno)
	}
	defer unix.Close(int(slave))
	if err := unix.Sendmsg(consoleFD, []byte{0}, unix.UnixRights(master), nil, 0); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(int(slave), fd, 0); err != nil {
			return err
		}
	}
	return nil
}

// makeConsole makes the workload's terminal /dev/console, as docker does.
func makeConsole() error {
	if err := os.WriteFile("/dev/console", nil, 0o600); err != nil {
		return err
	}
	return unix.Mount("/proc/self/fd/0", "/dev/console", "", unix.MS_BIND, "")
}
