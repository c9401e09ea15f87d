package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kraudcloud/kattest/guest/port"
)

// connectTimeout bounds the time until QEMU listens on its sockets.
const connectTimeout = time.Minute

// session is a running QEMU and its ports.
type session struct {
	o       Options
	folder  *folder
	began   time.Time
	qemu    *process
	monitor *qmp
	vcpu    int // the first vCPU's thread
	control net.Conn
	console *console
	secrets bool // the launch spec expects some

	mu    sync.Mutex
	state State // run.json, but for health that is younger

	ports  sync.WaitGroup // what reads from the guest
	events chan Event
	health atomic.Value // of port.Health: the guest's last word
	faults chan error   // why the guest must end
	ending chan string  // QEMU's reason for a shutdown
}

// start runs QEMU, connects its ports and lets the guest go.
func start(ctx context.Context, f *folder, l *launch, args []string, o Options) (*session, error) {
	s := &session{
		o:       o.withDefaults(),
		folder:  f,
		began:   time.Now(),
		events:  make(chan Event, maxEvents),
		faults:  make(chan error, 8),
		ending:  make(chan string, 1),
		secrets: l.vm.Spec.Secrets != nil,
	}
	s.console = &console{log: f.console, user: s.o.Console, unbooted: make(chan struct{})}
	var err error
	if s.qemu, err = l.startQEMU(f.dir, args); err != nil {
		return nil, err
	}
	if err := s.connect(ctx, f, l); err != nil {
		s.qemu.kill()
		<-s.qemu.done
		s.ports.Wait()
		return nil, s.startError(err)
	}
	return s, nil
}

// startQEMU hands QEMU the tap device, where there is one.
func (l *launch) startQEMU(dir string, args []string) (*process, error) {
	bridge := l.machine.Network.Bridge
	if bridge == "" {
		return startProcess(dir, args)
	}
	tap, err := openTap(bridge)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBridge, err)
	}
	defer tap.Close()
	return startProcess(dir, args, tap)
}

// startError puts QEMU's own words first: they are the cause of the rest.
func (s *session) startError(err error) error {
	if said := s.qemu.complaint(); said != "" {
		return fmt.Errorf("starting QEMU: %s (%w)", said, err)
	}
	return fmt.Errorf("starting QEMU: %w", err)
}

func (o Options) withDefaults() Options {
	for _, w := range []*io.Writer{&o.Stdout, &o.Stderr, &o.Console} {
		if *w == nil {
			*w = io.Discard
		}
	}
	if o.BootTimeout == 0 {
		o.BootTimeout = DefaultBootTimeout
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = DefaultStopTimeout
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.OnStart == nil {
		o.OnStart = func(State) {}
	}
	return o
}

func (s *session) connect(ctx context.Context, f *folder, l *launch) error {
	conn, err := s.dial(ctx, f, qmpSocket)
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(connectTimeout)); err != nil {
		return err
	}
	if s.monitor, err = newQMP(conn, s.onQMP); err != nil {
		conn.Close()
		return err
	}
	s.ports.Go(func() { // QEMU's last words are its reason for a shutdown
		defer conn.Close()
		<-s.monitor.ended
	})
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if s.vcpu, err = s.monitor.firstVCPU(); err != nil {
		return err
	}
	output, err := s.dial(ctx, f, consoleSocket)
	if err != nil {
		return err
	}
	s.drain(output, s.console)
	for _, name := range l.machine.Platform.portNames() {
		conn, err := s.dial(ctx, f, portSocket(name))
		if err != nil {
			return err
		}
		switch name {
		case port.ControlPort:
			s.control = conn
			s.ports.Go(func() { s.readControl(conn) })
		case port.StdoutPort:
			s.drain(conn, tee{s.o.Stdout, f.output.stream("stdout")})
		case port.StderrPort:
			s.drain(conn, tee{s.o.Stderr, f.output.stream("stderr")})
		case port.PSPPort:
			s.ports.Go(func() {
				defer conn.Close()
				if err := l.psp.Serve(conn); err != nil && !closed(err) {
					s.fault(err)
				}
			})
		}
	}
	s.state = State{
		MediaType: StateMediaType,
		PID:       s.qemu.cmd.Process.Pid,
		Launcher:  os.Getpid(),
		Platform:  l.machine.Platform.String(),
		Accel:     l.machine.Accel.String(),
		Agent:     l.machine.Network.Agent,
		Forwards:  l.machine.Network.Forwards,
		Began:     s.began.UTC(),
	}
	if err := f.writeState(s.state); err != nil {
		return err
	}
	s.o.OnStart(s.state)
	_, err = s.monitor.execute("cont", nil)
	return err
}

// dial waits for QEMU to listen.
func (s *session) dial(ctx context.Context, f *folder, name string) (net.Conn, error) {
	for deadline := time.Now().Add(connectTimeout); ; {
		conn, err := f.dial(name)
		if err == nil {
			return conn, nil
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-s.qemu.done:
			return nil, fmt.Errorf("QEMU ended: %w", processError(s.qemu.err))
		case <-ctx.Done():
			return nil, ErrStopped
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func processError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// drain copies what the guest writes, and goes on reading when no one listens
// any more: a guest must not stall because its output is unwanted.
func (s *session) drain(conn net.Conn, w io.Writer) {
	s.ports.Go(func() {
		defer conn.Close()
		if _, err := io.Copy(w, conn); err != nil && !closed(err) {
			_, _ = io.Copy(io.Discard, conn)
		}
	})
}

func (s *session) readControl(conn net.Conn) {
	defer close(s.events)
	defer conn.Close()
	err := readEvents(conn, s.began, func(e Event) {
		switch e.Name {
		case port.EventHealth: // as often as the guest likes
			s.health.Store(e.Health)
			return
		case port.EventStarted:
			s.noteStart(e)
		}
		s.o.OnEvent(e)
		s.events <- e // buffered for all that readEvents lets through
	})
	if err != nil {
		s.fault(fmt.Errorf("the guest broke the rules: %w", err))
	}
}

// noteStart puts the time of the container's start into run.json, once.
func (s *session) noteStart(e Event) {
	s.changeState(func(state *State) bool {
		first := state.Started.IsZero()
		if first {
			state.Started = s.began.Add(e.Since).UTC()
		}
		return first
	})
}

// healthInterval is how often the guest's word on its health is taken over.
const healthInterval = time.Second

// noteHealth puts the guest's last word on its health into run.json.
func (s *session) noteHealth() {
	h, said := s.health.Load().(port.Health)
	if !said {
		return
	}
	s.changeState(func(state *State) bool {
		other := state.Health != h
		state.Health = h
		return other
	})
}

// changeState writes run.json anew where do says that it has changed the state.
func (s *session) changeState(do func(*State) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if do(&s.state) {
		if err := s.folder.writeState(s.state); err != nil {
			s.fault(err)
		}
	}
}

// tee writes to the user, whose stream may be closed, and to the log.
type tee struct{ user, log io.Writer }

func (t tee) Write(p []byte) (int, error) {
	_, _ = t.user.Write(p)
	return t.log.Write(p)
}

func (s *session) fault(err error) {
	select {
	case s.faults <- err:
	default: // the first ones are the causes
	}
}

// onQMP takes QEMU's events.
// Source: QEMU 10.0, qapi/run-state.json.
func (s *session) onQMP(name string, data json.RawMessage) {
	switch name {
	case "SHUTDOWN":
		var v struct {
			Reason string `json:"reason"`
		}
		if json.Unmarshal(data, &v) == nil {
			select {
			case s.ending <- v.Reason:
			default:
			}
		}
	case "STOP": // no one asked for it: the accelerator gave up
		s.fault(errors.New("QEMU could not go on with the guest"))
	}
}

// closed says that an error is but the end of a connection.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || isReset(err)
}
