package pod

import (
	"strings"
	"testing"
)

// withSupervision is a spec with all that the agent does over a container's life.
func withSupervision() Spec {
	s := example()
	s.Image.Volumes = []string{"/data", "/var/lib/x"}
	s.Process.Terminal, s.Process.Stdin = true, true
	s.Healthcheck = &Healthcheck{Test: []string{"true"}, Interval: 1, Timeout: 2, Retries: 3, StartPeriod: 4, StartInterval: 5}
	s.Restart = &Restart{RestartOnFailure, 3}
	return s
}

func TestSupervision(t *testing.T) {
	s := withSupervision()
	readBack(t, s)
}

func TestCheckSupervision(t *testing.T) {
	for _, tt := range []struct {
		err    string
		change func(*Spec)
	}{
		{`image.volumes[0]: "/"`, func(s *Spec) { s.Image.Volumes = []string{"/"} }},
		{`image.volumes[0]: "/proc/x" is for the agent`, func(s *Spec) { s.Image.Volumes = []string{"/proc/x"} }},
		{`image.volumes[1]: "/a" does not sort behind "/a"`, func(s *Spec) { s.Image.Volumes = []string{"/a", "/a"} }},
		{"healthcheck.test: empty", func(s *Spec) { s.Healthcheck.Test = nil }},
		{"healthcheck.test[0]: holds a NUL", func(s *Spec) { s.Healthcheck.Test[0] = "a\x00" }},
		{"healthcheck.interval: 0", func(s *Spec) { s.Healthcheck.Interval = 0 }},
		{"healthcheck.timeout: 86400001", func(s *Spec) { s.Healthcheck.Timeout = 86400001 }},
		{"healthcheck.startPeriod: -1", func(s *Spec) { s.Healthcheck.StartPeriod = -1 }},
		{"healthcheck.retries: 0", func(s *Spec) { s.Healthcheck.Retries = 0 }},
		{`restart.policy: "no"`, func(s *Spec) { s.Restart.Policy = "no" }},
		{"restart.maximumRetries: -1", func(s *Spec) { s.Restart.MaximumRetries = -1 }},
		{"restart.maximumRetries: means nothing", func(s *Spec) { s.Restart.Policy = RestartAlways }},
	} {
		s := withSupervision()
		tt.change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("got %v, want %q", err, tt.err)
		}
	}
}
