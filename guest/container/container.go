// Package container starts the one container of a guest: the agent executes
// itself once more, in namespaces of its own; that process fences itself in and
// becomes the workload, with process number 1.
//
// What the workload gets is what docker gives a container by default, with
// these differences: no CAP_MKNOD, no device nodes from the image, no user
// namespaces, and the guest's own network namespace. As with docker, no_new_privs
// is off unless the spec asks for it, and orphans are for the workload to reap unless
// the spec asks for a reaper.
package container

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// Names under which the agent executes itself as what becomes a process of the
// container: the workload, a further one, one that reads and writes archives there, or
// the workload's reaper.
const (
	Arg0        = "cradle-container"
	ExecArg0    = "cradle-exec"
	ArchiveArg0 = "cradle-archive"
	ReaperArg0  = "cradle-reaper"
)

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
	Search      []string    `json:"search"`
	DNSOptions  []string    `json:"dnsOptions"`
	Hosts       []pod.Host  `json:"hosts"`
	Mounts      []Mount     `json:"mounts"`
	Volumes     []string    `json:"volumes"`  // the image's
	ReadOnly    bool        `json:"readOnly"` // the root file system
}

// NewConfig returns the configuration that a launch spec asks for.
func NewConfig(spec pod.Spec, root string) Config {
	c := Config{
		Root: root, Process: spec.Process, Hostname: spec.Network.Hostname,
		Search: spec.Network.Search, DNSOptions: spec.Network.Options, Hosts: spec.Network.Hosts,
		ReadOnly: spec.Image.ReadOnly, Volumes: spec.Image.Volumes,
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
type Container struct {
	*Process // the workload

	config Config
	cgroup *os.File
	pidfd  *os.File
}

// An ExecError says that the container is there but the workload's program
// could not be executed.
type ExecError struct {
	Exit   int // ExitNotFound or ExitNotExecutable
	Reason string
}

// Error returns the reason.
func (e *ExecError) Error() string { return e.Reason }

// Start makes the container in the cgroup of that folder and executes its workload.
// The error is an *ExecError where only the last step failed.
func Start(c Config, cgroup string) (*Container, error) {
	dir, err := os.Open(cgroup)
	if err != nil {
		return nil, err
	}
	pidfd := -1
	p, err := spawning{
		arg0: Arg0, config: c, terminal: c.Process.Terminal, stdin: c.Process.Stdin,
		attr: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			Setsid:      true,
			UseCgroupFD: true,
			CgroupFD:    int(dir.Fd()),
			PidFD:       &pidfd,
		},
	}.start()
	if err != nil {
		dir.Close()
		if pidfd >= 0 {
			_ = unix.Close(pidfd)
		}
		return nil, err
	}
	return &Container{p, c, dir, os.NewFile(uintptr(pidfd), "container")}, nil
}

// Wait waits for the workload's end and returns its exit status.
func (c *Container) Wait() (int, error) {
	defer c.cgroup.Close()
	defer c.pidfd.Close()
	return c.Process.Wait()
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
