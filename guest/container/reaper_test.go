package container

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The workload is what it is without a reaper, but for its number.
func TestReaperIdentity(t *testing.T) {
	c, cgroup := newContainer(t, "self")
	alone := self(t, finish(t, launch(t, c, cgroup).Process))
	c.Process.Init = true
	reaped := self(t, finish(t, launch(t, c, cgroup).Process))
	if alone["Pid"] != "1" || reaped["Pid"] == "1" {
		t.Errorf("process number %s, with a reaper %s", alone["Pid"], reaped["Pid"])
	}
	delete(alone, "Pid")
	delete(reaped, "Pid")
	if diff := cmp.Diff(alone, reaped); diff != "" {
		t.Errorf("-alone +reaped:\n%s", diff)
	}
}

// Orphans are waited for, by a reaper alone.
func TestReaperReaps(t *testing.T) {
	c, cgroup := newContainer(t, "orphan")
	for init, want := range map[bool]string{false: "left\n", true: "reaped\n"} {
		c.Process.Init = init
		if got := finish(t, launch(t, c, cgroup).Process); got != want {
			t.Errorf("with a reaper %v: %q, want %q", init, got, want)
		}
	}
}

// Signals reach the workload, and end one that does not handle them, other than
// process number 1.
func TestReaperHandsOnSignals(t *testing.T) {
	for _, tt := range []struct {
		init   bool
		signal unix.Signal
		exit   int
	}{
		{true, unix.SIGTERM, 7}, // it handles it
		{false, unix.SIGTERM, 7},
		{true, unix.Signal(sigRTMin + 3), 8},
		{true, unix.SIGINT, 130},
		{false, unix.SIGINT, 2}, // Go's runtime gives up where the kernel does not end it
		{true, unix.SIGKILL, 137},
	} {
		c, cgroup := newContainer(t, "sleep")
		c.Process.Init = tt.init
		container := launch(t, c, cgroup)
		ready(t, container.Process)
		if err := container.Signal(tt.signal); err != nil {
			t.Fatal(err)
		}
		if exit, err := container.Wait(); err != nil || exit != tt.exit {
			t.Errorf("%v with a reaper %v: exit status %d, %v; want %d", tt.signal, tt.init, exit, err, tt.exit)
		}
	}
}

// The agent is told by the reaper why there is no workload.
func TestReaperWithoutProgram(t *testing.T) {
	c, cgroup := newContainer(t)
	c.Process.Init = true
	for program, exit := range map[string]int{"/nothing": ExitNotFound, "nothing": ExitNotFound, "/data/file": ExitNotExecutable, "/etc": ExitNotExecutable} {
		c.Process.Args = []string{program}
		container, err := Start(c, cgroup)
		execErr, ok := errors.AsType[*ExecError](err)
		if container != nil || !ok || execErr.Exit != exit || !strings.Contains(execErr.Reason, program) {
			t.Errorf("%s: %v", program, err)
		}
	}
}

// The terminal is the workload's: what is typed, and what ends it.
func TestReaperTerminal(t *testing.T) {
	c, cgroup := newContainer(t, "terminal")
	c.Process.Init, c.Process.Terminal = true, true
	typeAndResize(t, launch(t, c, cgroup).Process, "\"typed\\n\" on /dev/pts/0, 33 by 77\r\n")

	container := launch(t, c, cgroup)
	ready(t, container.Process)
	if _, err := io.WriteString(container.Stdin, "\x03"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, container.Stdout); err != nil {
		t.Error(err)
	}
	if exit, err := container.Wait(); err != nil || exit != 130 {
		t.Errorf("Ctrl-C: exit status %d, %v; want 130", exit, err)
	}
	container.Stdout.Close()
}
