package guest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

func TestAgain(t *testing.T) {
	for _, tt := range []struct {
		policy         *pod.Restart
		exit, restarts int
		want           bool
	}{
		{nil, 1, 0, false},
		{&pod.Restart{Policy: pod.RestartOnFailure}, 0, 0, false},
		{&pod.Restart{Policy: pod.RestartOnFailure}, 1, 1000, true},
		{&pod.Restart{Policy: pod.RestartOnFailure, MaximumRetries: 2}, 1, 1, true},
		{&pod.Restart{Policy: pod.RestartOnFailure, MaximumRetries: 2}, 1, 2, false},
		{&pod.Restart{Policy: pod.RestartAlways}, 0, 1000, true},
		{&pod.Restart{Policy: pod.RestartUnlessStopped}, 0, 0, true},
	} {
		if got := again(tt.policy, tt.exit, tt.restarts); got != tt.want {
			t.Errorf("%+v after exit status %d and %d restarts: %v", tt.policy, tt.exit, tt.restarts, got)
		}
	}
}

// The event log counts restarts and stays bounded.
func TestRestartsInEventLog(t *testing.T) {
	var l eventLog
	l.add(eventStarted, "")
	for n := range 1000 {
		l.restarted(n+1, n%3)
	}
	l.add(eventExit, "0")
	events := l.snapshot()
	if len(events) != maxRestarts+2 {
		t.Fatalf("%d events", len(events))
	}
	if e := events[1]; e.Value != "1 0" {
		t.Errorf("the first restart is %q", e.Value)
	}
	if e := events[maxRestarts]; e.Name != eventRestarted || e.Value != "1000 0" {
		t.Errorf("the last restart is %+v", e)
	}
}

func TestHealth(t *testing.T) {
	var h health
	h.Status = port.HealthStarting
	for i, tt := range []struct {
		exit     int
		starting bool
		want     port.Health
		failures int
	}{
		{1, true, port.HealthStarting, 0}, // does not count yet
		{1, false, port.HealthStarting, 1},
		{0, true, port.Healthy, 0},
		{-1, true, port.Healthy, 1}, // it was well once: the time to start is over
		{1, false, port.Unhealthy, 2},
		{1, false, port.Unhealthy, 3},
		{0, false, port.Healthy, 0},
	} {
		h.note(probe{Exit: tt.exit, Output: fmt.Sprint(i)}, 2, tt.starting)
		if h.Status != tt.want || h.Failures != tt.failures {
			t.Errorf("probe %d: %s with %d failures, want %s with %d", i, h.Status, h.Failures, tt.want, tt.failures)
		}
	}
	if len(h.Log) != maxProbes || h.Log[0].Output != "2" {
		t.Errorf("%d probes are kept, from %q on", len(h.Log), h.Log[0].Output)
	}
}

func TestHead(t *testing.T) {
	var h head
	for range 3 {
		if n, err := h.Write([]byte(strings.Repeat("a", maxProbeOutput/2))); n != maxProbeOutput/2 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if len(h.String()) != maxProbeOutput {
		t.Errorf("%d bytes are kept", len(h.String()))
	}
}

// The host is told of each change, once, and no sooner than a second after the last;
// what it does not read is no error.
func TestTellHealth(t *testing.T) {
	p := &fakePort{}
	a := &agent{log: quiet(), task: newTask(), control: &control{port: p}}
	done := make(chan struct{})
	go func() { a.tellHealth(); close(done) }()
	set := func(h port.Health) { a.task.change(func(s *taskState) { s.Health.Status = h }) }
	said := func() string {
		a.control.mu.Lock()
		defer a.control.mu.Unlock()
		return p.String()
	}
	began := time.Now()
	set(port.HealthStarting)
	for !strings.Contains(said(), "starting") {
		time.Sleep(time.Millisecond)
	}
	for range 100 { // what changes faster is not told
		set(port.Unhealthy)
		set(port.Healthy)
	}
	for strings.Count(said(), "\n") < 2 {
		time.Sleep(time.Millisecond)
	}
	if d := time.Since(began); d < healthPace {
		t.Errorf("told again after %v", d)
	}
	a.control.mu.Lock()
	p.full = true
	a.control.mu.Unlock()
	set(port.Unhealthy)
	a.task.over(0)
	<-done
	var told []port.Health
	for line := range strings.Lines(said()) {
		var e port.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Name != port.EventHealth {
			t.Errorf("%q: %v", line, err)
		}
		told = append(told, e.Health)
	}
	if diff := cmp.Diff([]port.Health{port.HealthStarting, port.Healthy}, told); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
