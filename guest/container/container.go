// Package container starts the one container of a guest. The agent executes
// itself twice: the first process, in namespaces of its own, fences itself in
// and stays as the container's init, which reaps orphans and passes signals on;
// the second, its child, becomes the workload.
//
// What the workload gets is what docker gives a container started with --init,
// with these differences: no seccomp filter, no CAP_MKNOD, no device nodes from
// the image, no user namespaces, and the guest's own network namespace. As with
// docker, no_new_privs is off.
package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// The names under which the agent executes itself, see Main.
const (
	initArg0     = "cradle-container"
	workloadArg0 = "cradle-workload"
)

// Main is the container's part of a program that was executed as arg0. It
// returns false where arg0 is none of this package's names.
func Main(arg0 string) (exit int, ok bool) {
	switch arg0 {
	case initArg0:
		return report(initialise), true
	case workloadArg0:
		return report(execute), true
	default:
		return 0, false
	}
}

// Exit statuses where the workload could not be executed, as docker's and the shell's.
const (
	ExitNotExecutable = 126
	ExitNotFound      = 127
)

// Config is what the container is made from.
type Config struct {
	Root        string      `json:"root"` // where the container's root file system is mounted
	Process     pod.Process `json:"process"`
	Hostname    string      `json:"hostname"`
	Addresses   []string    `json:"addresses"`   // for /etc/hosts
	Nameservers []string    `json:"nameservers"` // for /etc/resolv.conf
}

// NewConfig returns the configuration that a launch spec asks for.
func NewConfig(spec pod.Spec, root string) Config {
	c := Config{Root: root, Process: spec.Process, Hostname: spec.Network.Hostname}
	for _, a := range spec.Network.Addresses {
		c.Addresses = append(c.Addresses, a.Addr().String())
	}
	for _, a := range spec.Network.Nameservers {
		c.Nameservers = append(c.Nameservers, a.String())
	}
	return c
}

// Container is a container whose workload was executed. Its process is the init.
type Container struct{ cmd *exec.Cmd }

// An ExecError says that the container is there but the workload's program
// could not be executed.
type ExecError struct {
	Exit   int // ExitNotFound or ExitNotExecutable
	Reason string
}

// Error returns the reason.
func (e *ExecError) Error() string { return e.Reason }

// The descriptors of the container's init, beside standard output and error.
const (
	configFD = 3
	statusFD = 4
)

// status is what the agent is told where there is no workload.
type status struct {
	Exit   int    `json:"exit"` // 0: the container could not be made
	Reason string `json:"reason"`
}

const maxStatus = 16 << 10 // bytes

// Start makes the container and executes its workload. The error is an
// *ExecError where only the last step failed.
func Start(c Config, cgroup *os.File, stdout, stderr *os.File) (*Container, error) {
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer statusR.Close()
	cmd := &exec.Cmd{
		Args:   []string{initArg0},
		Stdout: stdout,
		Stderr: stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			Setsid:      true,
			UseCgroupFD: true,
			CgroupFD:    int(cgroup.Fd()),
		},
	}
	spawnErr := spawn(cmd, c, statusW)
	if cmd.Process == nil {
		return nil, fmt.Errorf("executing the container's init: %w", spawnErr)
	}
	said, readErr := io.ReadAll(io.LimitReader(statusR, maxStatus))
	if len(said) == 0 && spawnErr == nil && readErr == nil {
		return &Container{cmd}, nil
	}
	_ = cmd.Process.Kill() // it ends by itself
	_ = cmd.Wait()
	if len(said) > 0 {
		return nil, parseStatus(said)
	}
	return nil, fmt.Errorf("talking to the container's init: %w", errors.Join(spawnErr, readErr))
}

// spawn executes this program once more, hands it the configuration, and
// closes status, whose other end hears of its failure.
func spawn(cmd *exec.Cmd, c Config, status *os.File) error {
	defer status.Close()
	config, err := json.Marshal(c)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	cmd.Path = "/proc/self/exe"
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{r, status} // configFD, statusFD
	err = cmd.Start()
	r.Close()
	if err != nil {
		return err
	}
	_, err = w.Write(config)
	return err
}

func parseStatus(said []byte) error {
	var s status
	if err := json.Unmarshal(said, &s); err != nil {
		return fmt.Errorf("the container's init said %.80q: %w", said, err)
	}
	if s.Exit != 0 {
		return &ExecError{s.Exit, s.Reason}
	}
	return errors.New(s.Reason)
}

// Signal sends a signal to the workload, by way of its init. SIGKILL ends the
// whole container.
func (c *Container) Signal(sig unix.Signal) error { return c.cmd.Process.Signal(sig) }

// Wait waits for the workload's end and returns its exit status. The kernel
// then has ended every other process of the container, as its init is gone.
func (c *Container) Wait() (int, error) {
	err := c.cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return 0, fmt.Errorf("waiting for the workload: %w", err)
	}
	return exitStatus(c.cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
}

// exitStatus is the shell's: 128 and the signal's number where one ended it.
func exitStatus(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// Real-time signals by the C library's count, which keeps two for itself.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal reads a signal's name, such as SIGTERM or SIGRTMIN+3.
func ParseSignal(name string) (unix.Signal, error) {
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	for prefix, base := range map[string]int{"SIGRTMIN": sigRTMin, "SIGRTMAX": sigRTMax} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		n := 0
		if rest != "" {
			var sign byte
			if _, err := fmt.Sscanf(rest, "%c%d", &sign, &n); err != nil || n < 0 || fmt.Sprintf("%c%d", sign, n) != rest {
				break
			}
			switch {
			case sign == '-' && prefix == "SIGRTMAX":
				n = -n
			case sign != '+' || prefix == "SIGRTMAX":
				return 0, fmt.Errorf("unknown signal %q", name)
			}
		}
		if sig := base + n; sig >= sigRTMin && sig <= sigRTMax {
			return unix.Signal(sig), nil
		}
	}
	return 0, fmt.Errorf("unknown signal %q", name)
}
