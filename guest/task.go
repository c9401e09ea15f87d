package guest

import (
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/docker"
)

// task is the container, over all of its restarts.
type task struct {
	stops chan stopRequest // holds one

	mu      sync.Mutex
	config  container.Config
	cgroup  string               // its folder
	running *container.Container // nil where it does not run
	state   taskState
	changed chan struct{} // closed by the next change of the state
	notify  func(events.Action, map[string]string)
}

// stopRequest asks for the workload's end: by a signal, the spec's where it is 0, and
// after that time by SIGKILL.
type stopRequest struct {
	signal unix.Signal
	grace  time.Duration
}

// taskState is what is known of the workload.
type taskState struct {
	Running           bool
	Restarting        bool // it does not run, and will again
	Started, Finished time.Time
	Exit              int // of the last run
	Exits             int // runs that have ended
	Restarts          int
	Over              bool // there will be no other run
	Health            health
	ending            bool // it was killed by one who wants its end
}

func newTask() *task {
	return &task{
		stops: make(chan stopRequest, 1), changed: make(chan struct{}),
		notify: func(events.Action, map[string]string) {},
	}
}

var errNotRunning = docker.ErrNotRunning

// prepare says what is to be started.
func (t *task) prepare(c container.Config, cgroup string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.config, t.cgroup = c, cgroup
}

// tell says who hears of what happens.
func (t *task) tell(notify func(events.Action, map[string]string)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notify = notify
}

// folder is the container's cgroup.
func (t *task) folder() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cgroup
}

// change changes the state, and tells who waits for that.
func (t *task) change(do func(*taskState)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	do(&t.state)
	close(t.changed)
	t.changed = make(chan struct{})
}

// start executes the workload, and hands on its output.
func (t *task) start(o *output) error {
	c, err := container.Start(t.config, t.cgroup)
	if err != nil {
		return err
	}
	o.drain(c.Process)
	t.change(func(s *taskState) {
		t.running = c
		s.Running, s.Restarting, s.Started, s.Health = true, false, time.Now(), health{}
	})
	t.notify(events.ActionStart, nil)
	return nil
}

// wait waits for the end of a run and returns its exit status.
func (t *task) wait() (int, error) {
	exit, err := t.current().Wait()
	t.change(func(s *taskState) {
		t.running = nil
		s.Running, s.Finished, s.Exit, s.Exits = false, time.Now(), exit, s.Exits+1
	})
	t.notify(events.ActionDie, map[string]string{"exitCode": strconv.Itoa(exit)})
	return exit, err
}

// restarting says that there will be another run.
func (t *task) restarting() { t.change(func(s *taskState) { s.Restarting = true }) }

// over says that there will be no other run.
func (t *task) over(exit int) {
	t.change(func(s *taskState) {
		if s.Exits == 0 || s.Restarting { // it could not be executed
			s.Exits, s.Finished = s.Exits+1, time.Now()
		}
		s.Exit, s.Over, s.Restarting = exit, true, false
	})
}

func (t *task) current() *container.Container {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running
}

// now is the state at this moment.
func (t *task) now() taskState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// watchState is now, and what is closed when that is no longer so.
func (t *task) watchState() (taskState, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state, t.changed
}

// signal sends a signal to the workload's first process.
func (t *task) signal(sig unix.Signal) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running == nil {
		return errNotRunning
	}
	return t.running.Signal(sig)
}

// kill is signal by one who wants the workload's end.
func (t *task) kill(sig unix.Signal) error {
	t.change(func(s *taskState) { s.ending = s.Running })
	return t.signal(sig)
}

// exec executes a further process in the container.
func (t *task) exec(e container.Exec) (*container.Process, error) {
	c := t.current()
	if c == nil {
		return nil, errNotRunning
	}
	return c.Exec(e)
}
