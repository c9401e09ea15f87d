// Package container starts the one container of a guest: the agent executes
// itself once more, in namespaces of its own; that process fences itself in and
// becomes the workload, with process number 1.
//
// What the workload gets is what docker gives a container by default, with
// these differences: no CAP_MKNOD, no device nodes from the
// image, no user namespaces, and the guest's own network namespace. As with
// docker, no_new_privs is off, and orphans are for the workload to reap.
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

// Arg0 is the name under which the agent executes itself as the container's init.
const Arg0 = "cradle-container"

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
	Mounts      []Mount     `json:"mounts"`
	Search      []string    `json:"search"`
	Hosts       []pod.Host  `json:"hosts"`
	ReadOnly    bool        `json:"readOnly"` // the root file system
}

// NewConfig returns the configuration that a launch spec asks for.
func NewConfig(spec pod.Spec, root string) Config {
	c := Config{
		Root: root, Process: spec.Process, Hostname: spec.Network.Hostname,
		Search: spec.Network.Search, Hosts: spec.Network.Hosts, ReadOnly: spec.Image.ReadOnly,
	}
	for _, a := range spec.Network.Addresses {
		c.Addresses = append(c.Addresses, a.Addr().String())
	}
	for _, a := range spec.Network.Nameservers {
		c.Nameservers = append(c.Nameservers, a.String())
	}
	return c
}

// Container is a container whose workload was executed.
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

// status is what the init tells the agent if it does not become the workload.
type status struct {
	Exit   int    `json:"exit"` // 0: the container could not be made
	Reason string `json:"reason"`
}

const maxStatus = 16 << 10 // bytes

// Start makes the container and executes its workload. The error is an
// *ExecError where only the last step failed.
func Start(c Config, cgroup *os.File, stdout, stderr *os.File) (*Container, error) {
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	configR, configW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer configW.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		configR.Close()
		return nil, err
	}
	defer statusR.Close()

	cmd := &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{Arg0},
		Env:        []string{},
		Stdout:     stdout,
		Stderr:     stderr,
		ExtraFiles: []*os.File{configR, statusW}, // configFD, statusFD
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			Setsid:      true,
			UseCgroupFD: true,
			CgroupFD:    int(cgroup.Fd()),
		},
	}
	err = cmd.Start()
	configR.Close()
	statusW.Close()
	if err != nil {
		return nil, fmt.Errorf("executing the container's init: %w", err)
	}
	_, writeErr := configW.Write(config)
	configW.Close()
	said, readErr := io.ReadAll(io.LimitReader(statusR, maxStatus))
	if len(said) == 0 && writeErr == nil && readErr == nil {
		return &Container{cmd}, nil
	}
	_ = cmd.Process.Kill() // it ends by itself
	_ = cmd.Wait()
	if err := errors.Join(writeErr, readErr); err != nil {
		return nil, fmt.Errorf("talking to the container's init: %w", err)
	}
	return nil, parseStatus(said)
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

// Signal sends a signal to the workload.
func (c *Container) Signal(sig unix.Signal) error { return c.cmd.Process.Signal(sig) }

// Wait waits for the workload's end and returns its exit status. The kernel
// then has ended every other process of the container.
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
