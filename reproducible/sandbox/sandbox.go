// Package sandbox runs a command that sees nothing of this machine but what it
// is given: a root folder, some folders bound into it, a fixed environment, a
// fixed user, host and folder names, and no network. It stands on bubblewrap.
//
// It makes builds repeatable. It does not bound memory, processor time or disk,
// and is no defence against a command that attacks the kernel.
package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// Bind shows a file or folder of this machine inside.
type Bind struct {
	Host, Guest string
	Writable    bool
}

// Command is one command in a sandbox of its own.
type Command struct {
	// Root becomes /, read-only. It must hold the folders /proc, /dev, /tmp and
	// those that Binds name. Empty: a folder with nothing but these.
	Root  string
	Binds []Bind
	// Dir is the working directory, inside.
	Dir string
	// Env is the whole environment, as NAME=VALUE.
	Env []string
	// User is the number of the user and group that the command believes to be, and
	// Hostname the machine's name. Empty: the same ones everywhere, and not root, so
	// that unpacking an archive keeps no owners.
	User, Hostname string
	// Args are the program, looked up inside, and its arguments.
	Args []string
	// Output takes standard output and standard error. Nil is silence.
	Output io.Writer
}

// program is what makes the sandbox.
const program = "bwrap"

// ErrMissing says that bubblewrap is not installed.
var ErrMissing = errors.New("bwrap is not installed: it is in the package bubblewrap")

// Run runs the command to its end. When ctx is cancelled every process of the
// sandbox is killed.
func (c Command) Run(ctx context.Context) error {
	bwrap, err := exec.LookPath(program)
	if err != nil {
		return ErrMissing
	}
	cmd := exec.CommandContext(ctx, bwrap, c.args()...)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = c.Output, c.Output
	// The sandbox dies with bwrap; a pipe that outlives it by much is a mistake.
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s in the sandbox: %w", c.Args[0], err)
	}
	return nil
}

func (c Command) args() []string {
	user := cmp.Or(c.User, "1000")
	args := []string{
		"--die-with-parent", "--new-session",
		"--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
		"--uid", user, "--gid", user, "--hostname", cmp.Or(c.Hostname, "kattest"),
		"--clearenv",
	}
	for _, e := range c.Env {
		name, value, _ := strings.Cut(e, "=")
		args = append(args, "--setenv", name, value)
	}
	if c.Root != "" {
		args = append(args, "--ro-bind", c.Root, "/")
	}
	args = append(args, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")
	for _, b := range c.Binds {
		how := "--ro-bind"
		if b.Writable {
			how = "--bind"
		}
		args = append(args, how, b.Host, b.Guest)
	}
	if c.Dir != "" {
		args = append(args, "--chdir", c.Dir)
	}
	return append(append(args, "--"), c.Args...)
}
