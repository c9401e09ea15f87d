package guest

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

// health is what the checks of one run have shown.
type health struct {
	Status   port.Health // none before the first run, or without a healthcheck
	Failures int         // in a row
	Log      []probe     // the last ones, oldest first
}

// probe is one check.
type probe struct {
	Began, Ended time.Time
	Exit         int // -1: it did not run, or not to its end in time
	Output       string
}

// Docker's bounds: as many probes are kept, and as many bytes of each one's output.
// Source: github.com/moby/moby, daemon/health.go.
const (
	maxProbes      = 5
	maxProbeOutput = 4096
)

// note adds a probe's result. Failures do not count in the time to start.
func (h *health) note(p probe, retries int, starting bool) {
	h.Log = append(h.Log, p)
	h.Log = h.Log[max(0, len(h.Log)-maxProbes):]
	switch {
	case p.Exit == 0:
		h.Status, h.Failures = port.Healthy, 0
	case starting && h.Status == port.HealthStarting:
	default:
		if h.Failures++; h.Failures >= retries {
			h.Status = port.Unhealthy
		}
	}
}

// watch checks the workload until ctx ends, with its run.
func (t *task) watch(ctx context.Context, h pod.Healthcheck) {
	milliseconds := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	t.change(func(s *taskState) { s.Health.Status = port.HealthStarting })
	began := time.Now()
	for {
		starting := time.Since(began) < milliseconds(h.StartPeriod)
		pause := milliseconds(h.Interval)
		if starting && t.now().Health.Status == port.HealthStarting && h.StartInterval > 0 {
			pause = milliseconds(h.StartInterval)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		starting = time.Since(began) < milliseconds(h.StartPeriod)
		p := t.probe(ctx, h.Test, milliseconds(h.Timeout))
		if ctx.Err() != nil {
			return
		}
		before := t.now().Health.Status
		t.change(func(s *taskState) { s.Health.note(p, h.Retries, starting) })
		if now := t.now().Health.Status; now != before {
			t.notify(events.Action(string(events.ActionHealthStatus)+": "+string(now)), nil)
		}
	}
}

// healthPace is the least time between two words to the host on the workload's health.
const healthPace = time.Second

// tellHealth tells the host how the workload is, whenever that has changed, until the
// last run is over. A host that does not listen does without.
func (a *agent) tellHealth() {
	told := port.Health("")
	for {
		state, changed := a.task.watchState()
		if state.Over {
			return
		}
		if now := state.Health.Status; now != told && now != "" {
			if err := a.control.send(port.Event{Name: port.EventHealth, Health: now}); err != nil {
				a.log.Warn("telling the host of the workload's health", "error", err)
			}
			told = now
			time.Sleep(healthPace)
			continue
		}
		<-changed
	}
}

// probe runs the check once. One that takes too long is killed.
func (t *task) probe(ctx context.Context, test []string, timeout time.Duration) (p probe) {
	p = probe{Began: time.Now(), Exit: -1}
	defer func() { p.Ended = time.Now() }()
	process, err := t.exec(container.Exec{Args: test})
	if err != nil {
		p.Output = err.Error()
		if execErr, ok := errors.AsType[*container.ExecError](err); ok {
			p.Exit = execErr.Exit
		}
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var said head
	var read sync.WaitGroup
	for _, r := range []io.ReadCloser{process.Stdout, process.Stderr} {
		read.Go(func() { _, _ = io.Copy(&said, r) })
	}
	killed := make(chan struct{})
	ended := context.AfterFunc(ctx, func() {
		_ = process.Signal(unix.SIGKILL)
		close(killed)
	})
	exit, err := process.Wait()
	if ended() {
		p.Exit = exit
	} else {
		<-killed
		said.add("\nthe check took too long")
	}
	// What it left behind may hold the pipes for good.
	done := make(chan struct{})
	go func() { read.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
	for _, r := range []io.ReadCloser{process.Stdout, process.Stderr} {
		r.Close()
	}
	read.Wait()
	if err != nil {
		p.Exit = -1
		said.add(err.Error())
	}
	p.Output = said.String()
	return p
}

// head keeps the first bytes of what is written.
type head struct {
	mu sync.Mutex
	b  []byte
}

// Write never fails.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p[:min(len(p), maxProbeOutput-len(h.b))]...)
	return len(p), nil
}

func (h *head) add(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, s...)
}

// String is what was kept.
func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.b)
}
