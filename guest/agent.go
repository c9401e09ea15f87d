// Package guest is the agent: the guest's first process, which turns a launch
// spec into a running container and answers challenges. What it does, step by
// step, is documented in docs/spec/agent.md.
//
// Everything that comes from the host is hostile, and the launch spec is the
// host's until its digest is found in HOST_DATA of the guest's own report. An
// error in any step is logged, told to the host as event "refused", and ends
// the guest. The agent cannot judge its own measurement: a verifier does.
package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/docker"
	"github.com/kraudcloud/kattest/guest/platform"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/guest/secrets"
)

// Main is the agent as process number 1, and the container's init where the
// agent executed itself as such. As process number 1 it does not return.
func Main() {
	switch os.Args[0] {
	case container.Arg0:
		os.Exit(container.Init())
	case container.ExecArg0:
		os.Exit(container.ExecInit())
	case container.ArchiveArg0:
		os.Exit(container.ArchiveMain())
	case container.ReaperArg0:
		os.Exit(container.Reaper())
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "cradle-init: error: not process number 1: it runs in a guest alone")
		os.Exit(2)
	}
	log.Info("agent", "uptime", uptime())
	run(log, nil)
}

// run is the agent. It gets its owner's secrets over its port, unless keys has them.
func run(log *slog.Logger, keys keySource) {
	a := newAgent(log)
	a.keys = keys
	a.end(a.run(context.Background(), a.steps()))
	powerOff(log)
}

// agent is what the steps hand on to each other.
type agent struct {
	log     *slog.Logger
	control *control
	failed  chan error // of what runs beside the steps

	platform *platform.Platform
	spec     pod.Spec
	digest   pod.Hash
	stop     unix.Signal // the spec's stop signal
	events   eventLog
	image    *verityImage
	keys     keySource
	secrets  map[string]secrets.Secret
	mounted  []mounted
	mounts   []container.Mount // what the container gets
	task     *task
	docker   *docker.Server // nil where the spec names no client
	output   output
	exit     *int // the container's exit status
}

func newAgent(log *slog.Logger) *agent {
	return &agent{log: log, failed: make(chan error, 1), task: newTask(), output: output{log: container.NewLog(logSize)}}
}

// A step is one part of a boot. An error ends the guest.
type step struct {
	name string
	run  func(context.Context) error
}

// String returns the step's name.
func (s step) String() string { return s.name }

// Run does what the step is for. A panic in it is an error.
func (s step) Run(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return s.run(ctx)
}

// steps are in the order that docs/spec/agent.md gives reasons for.
func (a *agent) steps() []step {
	return []step{
		{"mounts", a.mountSystem},
		{"control port", a.openControl},
		{"kernel settings", setSysctls},
		{"platform", a.openPlatform},
		{"launch spec", a.readSpec},
		{"image", a.mountImage},
		{"network", a.configureNetwork},
		{"evidence", a.serveEvidence},
		{"secrets", a.takeSecrets},
		{"volumes", a.mountAll},
		{"container", a.startContainer},
		{"supervision", a.supervise},
	}
}

// run runs the steps, to the first error. What fails beside the steps ends the
// run as well.
func (a *agent) run(ctx context.Context, steps []step) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		for _, s := range steps {
			if err := context.Cause(ctx); err != nil {
				done <- err
				return
			}
			began := time.Now()
			if err := s.Run(ctx); err != nil {
				done <- fmt.Errorf("%s: %w", s, err)
				return
			}
			a.log.Info("step", "name", s.String(), "took", time.Since(began).Round(time.Microsecond), "uptime", uptime())
		}
		done <- nil
	}()
	select {
	case err := <-done:
		return err
	case err := <-a.failed:
		return err
	}
}

// beside runs f beside the steps. An error or a panic of it ends the guest.
func (a *agent) beside(name string, f func() error) {
	go func() {
		if err := (step{name, func(context.Context) error { return f() }}).Run(context.Background()); err != nil {
			select {
			case a.failed <- fmt.Errorf("%s: %w", name, err):
			default: // the first one is the cause
			}
		}
	}()
}

// flushTime is for the host to read what stands in the ports.
const flushTime = 100 * time.Millisecond

// end says how the guest ends: with the container's exit status or a refusal.
func (a *agent) end(err error) {
	event := port.Event{Name: port.EventRefused}
	switch {
	case err != nil:
		event.Reason = truncate(err.Error(), maxReason)
		a.log.Error("refused", "reason", event.Reason)
	case a.exit == nil:
		event.Reason = "the steps ended without the container"
		a.log.Error("refused", "reason", event.Reason)
	default:
		event = port.Event{Name: port.EventExit, Exit: *a.exit}
		a.log.Info("exit", "status", *a.exit)
	}
	if a.exit == nil {
		_ = a.task.signal(unix.SIGKILL) // power-off ends it in any case
	}
	a.endDocker()
	a.unmountAll()
	if a.image != nil && a.image.corrupt() {
		a.log.Warn("dm-verity: the root disk does not hold the image: reads of it failed")
	}
	if a.control != nil {
		if err := a.control.send(event); err != nil {
			a.log.Warn("the host does not read events", "error", err)
		}
		time.Sleep(flushTime)
	}
}

// maxReason bounds a reason, in bytes: escaped, it fits a control line.
const maxReason = 640

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

// powerOff ends the guest. What is to outlive it has been unmounted.
func powerOff(log *slog.Logger) {
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	log.Error("powering off", "error", err)
	os.Exit(1) // the kernel panics, and restarts at once
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano()).Truncate(time.Microsecond)
}

var errStopped = errors.New("the host asked to stop before the container was started")
