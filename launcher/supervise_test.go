package launcher

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/port"
)

// TestResult: of all that is known at the end, the guest's word comes first.
func TestResult(t *testing.T) {
	exit := func(n int) Event { return Event{Event: port.Event{Name: port.EventExit, Exit: n}} }
	refused := Event{Event: port.Event{Name: port.EventRefused, Reason: "no"}}
	fault := errors.New("fault")
	for _, tt := range []struct {
		name     string
		events   []Event
		cause    error // why the launcher ended it
		late     error // a fault that came with the end
		shutdown string
		said     string // QEMU
		exit     int
		err      string // empty: none
	}{
		{name: "exit", events: []Event{exit(3)}, shutdown: "guest-shutdown", exit: 3},
		{name: "exit, then a fault", events: []Event{exit(3)}, late: fault, exit: 3},
		{name: "refused", events: []Event{refused}, cause: fault, err: "the guest refused: no"},
		{name: "the launcher's cause", cause: fault, err: "fault"},
		{name: "the launcher's cause and QEMU's", cause: fault, said: "KVM internal error\nmore\n", err: "fault (QEMU: KVM internal error\nmore)"},
		{name: "a late fault", late: fault, shutdown: "guest-shutdown", err: "fault"},
		{name: "panic", shutdown: "guest-reset", err: "its kernel panicked"},
		{name: "power off", shutdown: "guest-shutdown", err: "it powered off"},
		{name: "QEMU failed", said: "qemu-system-x86_64: warning: x\nqemu-system-x86_64: bad\n", err: "QEMU: qemu-system-x86_64: bad"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &session{faults: make(chan error, 1), ending: make(chan string, 1), qemu: &process{}}
			var out outcome
			for _, e := range tt.events {
				out.take(e)
			}
			out.cause = tt.cause
			if tt.late != nil {
				s.fault(tt.late)
			}
			if tt.shutdown != "" {
				s.ending <- tt.shutdown
			}
			if _, err := s.qemu.stderr.Write([]byte(tt.said)); err != nil {
				t.Fatal(err)
			}
			exit, err := s.result(out)
			if exit != tt.exit || (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %d, %v; want %d, %q", exit, err, tt.exit, tt.err)
			}
			if strings.Contains(tt.said, "warning") && strings.Contains(err.Error(), "warning") {
				t.Errorf("warnings are no cause: %v", err)
			}
		})
	}
}

func TestBootTimeoutText(t *testing.T) {
	s := &session{o: Options{BootTimeout: time.Second}, console: &console{}}
	if err := s.bootTimeout(false); !strings.Contains(err.Error(), "within 1s, and nothing was printed") {
		t.Error(err)
	}
	if err := s.bootTimeout(true); strings.Contains(err.Error(), "nothing was printed") {
		t.Error(err)
	}
}

func TestTail(t *testing.T) {
	var b tail
	for range 3 {
		if n, err := b.Write([]byte(strings.Repeat("x", tailSize) + "end")); n != tailSize+3 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := b.String(); len(got) != tailSize || !strings.HasSuffix(got, "xend") {
		t.Errorf("%d bytes kept, want the last %d", len(got), tailSize)
	}
}
