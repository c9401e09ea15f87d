package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hide keeps the workload from looking into the init, or at the file that it
// was executed from (prctl(2), PR_SET_DUMPABLE).
func hide() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// runWorkload starts the workload as this process's child and waits for it.
// Until then it reaps whatever the container leaves behind, and passes signals on.
func runWorkload(c Config) (int, error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	cmd := &exec.Cmd{
		Args:        []string{workloadArg0},
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := spawn(cmd, c, os.NewFile(statusFD, "status")); cmd.Process == nil {
		return 0, fmt.Errorf("container: executing the workload's process: %w", err)
	}
	if err := keepOnly(unix.CAP_KILL); err != nil {
		return failed("giving up the init's capabilities", err)
	}
	go forward(signals, cmd.Process.Pid)
	exit, err := reap(cmd.Process.Pid)
	if err != nil {
		return failed("waiting for the workload", err)
	}
	return exit, nil
}

// failed ends the container: the agent no longer listens for a status.
func failed(doing string, err error) (int, error) {
	fmt.Fprintf(os.Stderr, "cradle-init: error: container: %s: %v\n", doing, err)
	return 1, nil
}

// forward passes signals on. Two are not for others: the kernel sends SIGCHLD
// for each child, and Go's scheduler SIGURG.
func forward(signals <-chan os.Signal, pid int) {
	for s := range signals {
		if s != unix.SIGCHLD && s != unix.SIGURG {
			_ = unix.Kill(pid, s.(unix.Signal)) // it may have ended just now
		}
	}
}

// reap waits for children, adopted ones too, until the one of that number ended.
func reap(pid int) (int, error) {
	for {
		var s syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &s, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case ended == pid:
			return exitStatus(s), nil
		}
	}
}

// keepOnly leaves all threads of this process one capability.
func keepOnly(capability int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	sets[capability/32].Permitted = 1 << (capability % 32)
	sets[capability/32].Effective = 1 << (capability % 32)
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
