package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// reaping is what the reaper executes.
type reaping struct {
	Program  string   `json:"program"`
	Args     []string `json:"args"`
	Env      []string `json:"env"`
	Terminal bool     `json:"terminal"`
}

// reap makes this process the reaper of the workload: the agent's program once more,
// with nothing of the agent's and the workload's identity, filter and limits. The
// workload's environment comes to it in a file without a name, as its own would change
// what Go's runtime does.
func reap(program string, p pod.Process, env []string) error {
	data, err := json.Marshal(reaping{program, p.Args, env, p.Terminal})
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("reaper", 0)
	if err != nil {
		return fmt.Errorf("making the reaper's configuration: %w", err)
	}
	config := os.NewFile(uintptr(fd), "configuration")
	if _, err := config.Write(data); err != nil {
		return fmt.Errorf("writing the reaper's configuration: %w", err)
	}
	if _, err := config.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := unix.Dup3(fd, configFD, 0); err != nil {
		return err
	}
	if err := config.Close(); err != nil {
		return err
	}
	// It tells the agent whether the workload was executed.
	if _, err := unix.FcntlInt(statusFD, unix.F_SETFD, 0); err != nil {
		return err
	}
	err = unix.Exec("/proc/self/exe", append([]string{ReaperArg0, "--"}, p.Args...), []string{})
	unix.CloseOnExec(statusFD)
	return fmt.Errorf("executing the reaper: %w", err)
}

// Reaper is the container's process number 1 where the launch spec asks for one beside
// the workload: it executes the workload, hands signals on to it, and waits for the
// processes that nobody else waits for. It returns the exit status to end with, the
// workload's.
func Reaper() int {
	for _, fd := range []int{configFD, statusFD} {
		unix.CloseOnExec(fd)
	}
	signals := make(chan os.Signal, 128)
	signal.Notify(signals)
	child, err := startReaped()
	told := os.NewFile(statusFD, "status")
	if err != nil {
		s := status{Reason: err.Error()}
		if execErr, ok := errors.AsType[*ExecError](err); ok {
			s.Exit = execErr.Exit
		}
		_ = json.NewEncoder(told).Encode(s)
		return max(1, s.Exit)
	}
	told.Close() // that is success
	go func() {
		for s := range signals {
			// A child's end is the reaper's own matter, and SIGURG Go's way to switch goroutines.
			if s != unix.SIGCHLD && s != unix.SIGURG {
				_ = syscall.Kill(child, s.(syscall.Signal))
			}
		}
	}()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "reaper: waiting:", err)
			return 1
		case pid == child:
			return exitStatus(ws)
		}
	}
}

// startReaped executes the workload, and returns its process number. It is the leader
// of a session of its own, which has the terminal: what is typed there to end it, it
// gets once.
func startReaped() (int, error) {
	var r reaping
	config := os.NewFile(configFD, "configuration")
	err := readConfig(config, &r)
	config.Close()
	if err != nil {
		return 0, err
	}
	child, err := syscall.ForkExec(r.Program, r.Args, &syscall.ProcAttr{
		Env: r.Env, Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: r.Terminal},
	})
	if err != nil {
		return 0, execError(r.Args[0], err)
	}
	return child, nil
}
