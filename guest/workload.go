package guest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

// stopGrace is the time between the stop signal and SIGKILL: docker's.
const stopGrace = 10 * time.Second

// Docker's pauses before a restart: they double, unless the workload ran for a while.
// Source: github.com/moby/moby, daemon/internal/restartmanager.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Minute
	steadyRun    = 10 * time.Second
)

func (a *agent) startContainer(ctx context.Context) error {
	select {
	case <-a.control.stop:
		return errStopped
	default:
	}
	cgroup, err := containerCgroup(a.spec.Resources)
	if err != nil {
		return fmt.Errorf("making a cgroup: %w", err)
	}
	if err := a.output.open(ctx, a.spec.Console); err != nil {
		return err
	}
	config := container.NewConfig(a.spec, rootDir)
	config.Mounts = a.mounts
	if err := a.placeSecrets(&config); err != nil {
		return err
	}
	if err := protectAgent(); err != nil {
		return err
	}
	a.task.prepare(config, cgroup)
	err = a.task.start(&a.output)
	if execErr, ok := errors.AsType[*container.ExecError](err); ok {
		a.notExecuted(execErr)
		return nil
	} else if err != nil {
		return err
	}
	a.events.add(eventStarted, "")
	if err := a.control.send(port.Event{Name: port.EventStarted}); err != nil {
		return err
	}
	if a.spec.Healthcheck != nil {
		a.beside("telling of the workload's health", func() error { a.tellHealth(); return nil })
	}
	return nil
}

// protectAgent makes the agent's own root read-only: a process of the container's that
// comes by a link to the agent's program, as /proc/PID/exe is one, cannot write it.
func protectAgent() error {
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("making the agent's root read-only: %w", err)
	}
	return nil
}

// notExecuted says where the workload's output goes why there is none.
func (a *agent) notExecuted(err *container.ExecError) {
	line := []byte("cradle-init: error: " + err.Error() + "\n")
	a.output.log.Append(container.Stderr, line)
	_, _ = a.output.stderr.Write(line)
	a.ended(err.Exit)
}

func (a *agent) ended(exit int) {
	a.exit = &exit
	a.events.add(eventExit, strconv.Itoa(exit))
	a.task.over(exit)
	a.output.log.End()
}

// supervise waits for the workload's end, starts it again if the spec says so, and
// brings its end about when the host asks for it.
func (a *agent) supervise(ctx context.Context) error {
	pause := firstPause
	for a.exit == nil { // it may never have begun
		exit, stopped, err := a.superviseRun(ctx)
		if err != nil {
			return err
		}
		state := a.task.now()
		if stopped || state.ending || !again(a.spec.Restart, exit, state.Restarts) {
			a.ended(exit)
			break
		}
		if state.Finished.Sub(state.Started) >= steadyRun {
			pause = firstPause
		}
		a.log.Info("restarting", "exit", exit, "after", pause)
		a.task.restarting()
		select {
		case <-a.control.stop:
			a.ended(exit)
			continue
		case <-a.task.stops:
			a.ended(exit)
			continue
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
		if err := a.restart(state.Restarts+1, exit); err != nil {
			return err
		}
	}
	return nil
}

// restart starts the workload for the n-th time again, after that exit status.
func (a *agent) restart(n, exit int) error {
	err := a.task.start(&a.output)
	if execErr, ok := errors.AsType[*container.ExecError](err); ok {
		a.notExecuted(execErr)
		return nil
	} else if err != nil {
		return err
	}
	a.task.change(func(s *taskState) { s.Restarts = n })
	a.events.restarted(n, exit)
	return nil
}

// again says whether a workload that ended by itself is started again.
func again(r *pod.Restart, exit, restarts int) bool {
	switch {
	case r == nil:
		return false
	case r.Policy == pod.RestartOnFailure:
		return exit != 0 && (r.MaximumRetries == 0 || restarts < r.MaximumRetries)
	}
	return true
}

// superviseRun waits for the end of one run, and says whether it was asked for.
func (a *agent) superviseRun(ctx context.Context) (exit int, stopped bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if h := a.spec.Healthcheck; h != nil {
		a.beside("healthcheck", func() error { a.task.watch(ctx, *h); return nil })
	}
	done := make(chan error, 1)
	go func() {
		var err error
		exit, err = a.task.wait()
		done <- err
	}()
	grace := stopGrace
	if n := a.spec.Process.StopTimeout; n != 0 {
		grace = time.Duration(n) * time.Second
	}
	var kill <-chan time.Time
	end := func(r stopRequest) {
		kill, stopped = time.After(r.grace), true
		a.log.Info("stopping", "signal", unix.SignalName(r.signal))
		_ = a.task.signal(r.signal) // it may have ended just now
	}
	stop := a.control.stop
	for {
		select {
		case err := <-done:
			a.output.drained.Wait()
			return exit, stopped, err
		case <-stop:
			stop = nil
			end(stopRequest{a.stop, grace})
		case r := <-a.task.stops:
			if r.signal == 0 {
				r.signal = a.stop
			}
			end(r)
		case <-kill:
			a.log.Warn("the container did not stop in time")
			_ = a.task.signal(unix.SIGKILL)
		}
	}
}
