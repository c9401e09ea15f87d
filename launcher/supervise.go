package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/kraudcloud/kattest/guest/port"
)

// outcome is what is known of a guest's life.
type outcome struct {
	agent, started bool
	secrets        bool          // the spec expects some
	waiting        bool          // for them, as long as it takes
	exit           *int          // the container's exit status
	refused        *RefusedError // the guest's reason
	cause          error         // why the launcher ended it
}

// supervise waits for the guest's end, and brings it about where it must.
func (s *session) supervise(ctx context.Context) (int, error) {
	out := outcome{secrets: s.secrets}
	boot := time.NewTimer(s.o.BootTimeout - time.Since(s.began))
	defer boot.Stop()
	watch := time.NewTicker(watchInterval)
	defer watch.Stop()
	health := time.NewTicker(healthInterval)
	defer health.Stop()
	var (
		loop     deadLoop
		stopping <-chan time.Time
		stop     = ctx.Done()
		events   = s.events
		ended    = s.qemu.done
		timeout  = s.o.StopTimeout
		asked    bool
		unbooted = s.console.unbooted
	)
	end := func(cause error) {
		if out.cause == nil {
			out.cause = cause
		}
		s.qemu.kill()
	}
	askStop := func() {
		if !out.agent { // no one is there to be asked
			end(ErrStopped)
			return
		}
		stopping = time.After(timeout)
		if asked {
			return
		}
		asked = true
		if _, err := io.WriteString(s.control, port.CommandStop+"\n"); err != nil {
			end(fmt.Errorf("asking the agent to stop: %w", err))
		}
	}
	for ended != nil {
		select {
		case <-ended:
			ended = nil
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			out.take(e)
			if out.over() && stopping == nil {
				stopping = time.After(s.o.StopTimeout)
			}
		case err := <-s.faults:
			end(err)
		case <-stop:
			stop = nil
			askStop()
		case r := <-s.folder.requests.ch:
			if r.Command == commandKill {
				end(ErrStopped)
				continue
			}
			if r.TimeoutMS > 0 {
				timeout = time.Duration(r.TimeoutMS) * time.Millisecond
			}
			askStop()
		case <-stopping:
			if out.over() {
				s.qemu.kill()
			} else {
				end(fmt.Errorf("%w: it took more than %v", ErrStopped, timeout))
			}
		case <-s.o.Kill:
			end(ErrStopped)
		case <-unbooted:
			unbooted = nil
			if !out.agent { // whose console it is from then on
				end(ErrNothingBooted)
			}
		case <-boot.C:
			if !out.started && !out.waiting && !out.over() {
				end(s.bootTimeout(out.agent))
			}
		case <-health.C:
			s.noteHealth()
		case <-watch.C:
			// A guest's registers are its own on SNP.
			if s.o.Platform == SNP || out.agent || s.console.written.Load() > 0 {
				watch.Stop()
			} else if s.dead(&loop) {
				end(ErrFirmwareRefused)
			}
		}
	}
	s.ports.Wait()
	if events != nil {
		for e := range events { // what stood in the port when QEMU ended
			out.take(e)
		}
	}
	return s.result(out)
}

func (o *outcome) take(e Event) {
	switch e.Name {
	case port.EventAgent:
		o.agent = true
	case port.EventServing:
		o.waiting = o.secrets
	case port.EventStarted:
		o.started = true
	case port.EventExit:
		o.exit = &e.Exit
	case port.EventRefused:
		o.refused = &RefusedError{Reason: printable(e.Reason)}
	}
}

// over says that the guest has said how it ends, and has only to power off.
func (o *outcome) over() bool { return o.exit != nil || o.refused != nil }

func (s *session) bootTimeout(agent bool) error {
	silence := ""
	if !agent && s.console.written.Load() == 0 {
		silence = ", and nothing was printed: the firmware may have refused the kernel, initrd or command line"
	}
	return fmt.Errorf("the container was not started within %v%s", s.o.BootTimeout, silence)
}

// dead says whether the firmware has stopped in an endless loop. Where QEMU does
// not answer there is no sample, and the boot's time-out decides.
func (s *session) dead(loop *deadLoop) bool {
	text, err := s.monitor.monitor("info registers")
	if err != nil {
		return false
	}
	rip, halted, ok := parseRegisters(text)
	cpu, err := threadTime(s.qemu.cmd.Process.Pid, s.vcpu)
	if !ok || err != nil {
		return false
	}
	return loop.sample(rip, halted, cpu)
}

// result judges a life that is over. The guest's own word comes first, as it
// names the cause; then the launcher's, then QEMU's.
func (s *session) result(out outcome) (int, error) {
	if out.refused != nil {
		return 0, out.refused
	}
	if out.exit != nil && out.cause == nil {
		return *out.exit, nil
	}
	select {
	case err := <-s.faults: // came with the end
		if out.cause == nil {
			out.cause = err
		}
	default:
	}
	said := s.qemu.complaint()
	if out.cause != nil {
		if said != "" {
			return 0, fmt.Errorf("%w (QEMU: %s)", out.cause, said)
		}
		return 0, out.cause
	}
	err := fmt.Errorf("the guest ended without a word (%s)", s.reason())
	if said != "" {
		err = fmt.Errorf("%w: QEMU: %s", err, said)
	}
	return 0, err
}

func (s *session) reason() string {
	select {
	case reason := <-s.ending:
		switch reason {
		case "guest-reset":
			return "it reset: its kernel panicked, or its firmware found nothing to boot"
		case "guest-shutdown":
			return "it powered off"
		case "guest-panic":
			return "its kernel panicked"
		default:
			return fmt.Sprintf("QEMU says %.40q", reason)
		}
	default:
		return "QEMU ended: " + processError(s.qemu.err).Error()
	}
}

// isReset says that a peer went away with bytes unread.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
