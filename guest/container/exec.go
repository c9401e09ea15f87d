package container

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// Exec is a further process of a container. It has the workload's namespaces, cgroup,
// capabilities, limits and filter.
type Exec struct {
	Args       []string
	Env        []string // NAME=value, over the workload's
	User       string   // in place of the workload's, if not empty; then without its groups
	WorkingDir string   // in place of the workload's, if not empty
	Terminal   bool
	Stdin      bool // ignored with Terminal, which has it always
	// Rows and Columns are the terminal's size, in characters; 0 is not known.
	Rows, Columns uint16
}

// process is the whole of what e asks for.
func (e Exec) process(of pod.Process) (pod.Process, error) {
	p := of
	if len(e.Args) == 0 || e.Args[0] == "" {
		return pod.Process{}, errors.New("no command")
	}
	p.Args, p.Terminal, p.Stdin, p.Init = e.Args, e.Terminal, e.Stdin, false
	p.Env = slices.Clone(of.Env)
	for _, entry := range e.Env {
		name, _, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return pod.Process{}, fmt.Errorf("environment: %.80q is not NAME=value", entry)
		}
		p.Env = slices.DeleteFunc(p.Env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		p.Env = append(p.Env, entry)
	}
	if e.User != "" {
		p.User, p.Groups = e.User, nil
	}
	if e.WorkingDir != "" {
		p.WorkingDir = e.WorkingDir
	}
	for _, s := range slices.Concat(p.Args, p.Env, []string{p.User, p.WorkingDir}) {
		if strings.ContainsRune(s, 0) {
			return pod.Process{}, fmt.Errorf("%.80q holds a NUL", s)
		}
	}
	return p, nil
}

// Exec executes a further process in the container. The error is an *ExecError where
// its program could not be executed.
func (c *Container) Exec(e Exec) (*Process, error) {
	process, err := e.process(c.config.Process)
	if err != nil {
		return nil, err
	}
	return c.join(joining{Process: process, Rows: e.Rows, Columns: e.Columns})
}

// joining is what a further process is made from.
type joining struct {
	Process pod.Process `json:"process"`
	Archive bool        `json:"archive"` // it executes the agent, for Archive
	Rows    uint16      `json:"rows"`
	Columns uint16      `json:"columns"`
}

// join makes a further process.
func (c *Container) join(j joining) (*Process, error) {
	s := spawning{
		arg0: ExecArg0, config: j, terminal: j.Process.Terminal, stdin: j.Process.Stdin, target: c.pidfd,
		attr: &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(c.cgroup.Fd())},
	}
	type result struct {
		p   *Process
		err error
	}
	done := make(chan result)
	go func() {
		// Children of this thread are born in the container's process namespace; it ends
		// with this function, for it is not unlocked.
		runtime.LockOSThread()
		if err := unix.Setns(int(c.pidfd.Fd()), unix.CLONE_NEWPID); err != nil {
			done <- result{nil, fmt.Errorf("entering the process namespace: %w", err)}
			return
		}
		p, err := s.start()
		done <- result{p, err}
	}()
	r := <-done
	return r.p, r.err
}

// join makes this process one of the container's that targetFD names. It is in the
// process namespace and in the cgroup already.
func join(config io.Reader) error {
	var j joining
	if err := readConfig(config, &j); err != nil {
		return err
	}
	p, program := j.Process, ""
	if err := runSteps([]step{
		{"hiding from processes of the container", hide},
		{"opening the agent's program", func() (err error) {
			if j.Archive {
				program, err = openProgram()
			}
			return err
		}},
		// A thread that shares its root with others enters no mount namespace.
		{"unsharing the root", func() error { return unix.Unshare(unix.CLONE_FS) }},
		{"entering the container", func() error {
			return unix.Setns(targetFD, unix.CLONE_NEWNS|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWCGROUP)
		}},
		{"opening standard streams", func() error { return openStreams(p, false) }},
		{"sizing the terminal", func() error {
			if !p.Terminal {
				return nil
			}
			return unix.IoctlSetWinsize(0, unix.TIOCSWINSZ, &unix.Winsize{Row: j.Rows, Col: j.Columns})
		}},
		{"making a session keyring", newKeyring},
		{"setting limits", func() error { return setLimits(p.Rlimits) }},
		{"closing the agent's descriptors", closeOthers},
	}); err != nil {
		return err
	}
	return execute(p, program)
}

// openProgram opens the agent's program, and returns a path of it in the container.
func openProgram() (string, error) {
	fd, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	return fmt.Sprintf("/proc/self/fd/%d", fd), err
}
