package guest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/port"
)

// stopGrace is the time between the stop signal and SIGKILL unless the spec says
// otherwise: docker's.
const stopGrace = 10 * time.Second

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
	defer cgroup.Close()
	stdout, stderr, err := a.output.openBoth(ctx, a.spec.Console)
	if err != nil {
		return err
	}
	defer stdout.Close()
	defer stderr.Close()
	config := container.NewConfig(a.spec, rootDir)
	config.Mounts = a.mounts
	if err := a.placeSecrets(&config); err != nil {
		return err
	}
	c, err := container.Start(config, cgroup, stdout, stderr)
	if execErr, ok := errors.AsType[*container.ExecError](err); ok {
		fmt.Fprintln(stderr, "cradle-init: error:", execErr)
		a.ended(execErr.Exit)
		return nil
	} else if err != nil {
		return err
	}
	a.container = c
	a.events.add(eventStarted, "")
	return a.control.send(port.Event{Name: port.EventStarted})
}

func (a *agent) ended(exit int) {
	a.exit = &exit
	a.events.add(eventExit, strconv.Itoa(exit))
}

// supervise waits for the workload's end, and brings it about when the host
// asks for it.
func (a *agent) supervise(context.Context) error {
	if a.exit != nil { // it never began
		a.output.drained.Wait()
		return nil
	}
	done := make(chan error, 1)
	go func() {
		exit, err := a.container.Wait()
		if err == nil {
			a.ended(exit)
		}
		done <- err
	}()
	var kill <-chan time.Time
	grace := stopGrace
	if n := a.spec.Process.StopTimeout; n != 0 {
		grace = time.Duration(n) * time.Second
	}
	stop := a.control.stop
	for {
		select {
		case err := <-done:
			a.output.drained.Wait()
			return err
		case <-stop:
			stop, kill = nil, time.After(grace)
			a.log.Info("stopping", "signal", unix.SignalName(a.stop))
			_ = a.container.Signal(a.stop) // it may have ended just now
		case <-kill:
			a.log.Warn("the container did not stop", "after", grace)
			_ = a.container.Signal(unix.SIGKILL)
		}
	}
}
