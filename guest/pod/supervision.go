package pod

import (
	"slices"
	"strings"
)

// Healthcheck is a command in the container that tells whether the workload is well.
// Times are in milliseconds.
type Healthcheck struct {
	Test          []string `json:"test"` // argv
	Interval      int64    `json:"interval"`
	Timeout       int64    `json:"timeout"`
	Retries       int      `json:"retries"`                 // failures in a row that make it unhealthy
	StartPeriod   int64    `json:"startPeriod,omitempty"`   // in which failures do not count
	StartInterval int64    `json:"startInterval,omitempty"` // in place of Interval in that period
}

// Restart says when the workload is started again.
type Restart struct {
	Policy         RestartPolicy `json:"policy"`
	MaximumRetries int           `json:"maximumRetries,omitempty"` // of on-failure; 0 is without end
}

// RestartPolicy is docker's. A spec without Restart is docker's "no".
type RestartPolicy string

// The values of RestartPolicy. A guest that was stopped stays so.
const (
	RestartOnFailure     RestartPolicy = "on-failure"
	RestartAlways        RestartPolicy = "always"
	RestartUnlessStopped RestartPolicy = "unless-stopped"
)

const (
	maxSeconds = 24 * 60 * 60
	maxRetries = 1 << 20
	maxDirs    = 64 // volumes of an image
)

func (s Spec) checkSupervision(bad func(format string, args ...any)) {
	s.Image.checkVolumes(bad)
	if s.Healthcheck != nil {
		s.Healthcheck.check(bad)
	}
	if s.Restart != nil {
		s.Restart.check(bad)
	}
}

func (img Image) checkVolumes(bad func(format string, args ...any)) {
	if len(img.Volumes) > maxDirs {
		bad("image.volumes: %d, more than %d", len(img.Volumes), maxDirs)
	}
	for i, dir := range img.Volumes {
		switch {
		case !cleanPath(dir) || dir == "/":
			bad("image.volumes[%d]: %q is not a clean absolute path below /", i, dir)
		case agents(dir):
			bad("image.volumes[%d]: %q is for the agent to fill", i, dir)
		case i > 0 && dir <= img.Volumes[i-1]:
			bad("image.volumes[%d]: %q does not sort behind %q", i, dir, img.Volumes[i-1])
		}
	}
}

func (h Healthcheck) check(bad func(format string, args ...any)) {
	if len(h.Test) == 0 || h.Test[0] == "" {
		bad("healthcheck.test: empty")
	}
	for i, arg := range h.Test {
		if strings.ContainsRune(arg, 0) {
			bad("healthcheck.test[%d]: holds a NUL", i)
		}
	}
	for _, member := range []struct {
		name       string
		value, min int64
	}{
		{"interval", h.Interval, 1},
		{"timeout", h.Timeout, 1},
		{"startPeriod", h.StartPeriod, 0},
		{"startInterval", h.StartInterval, 0},
	} {
		if member.value < member.min || member.value > maxSeconds*1000 {
			bad("healthcheck.%s: %d is not between %d and %d milliseconds", member.name, member.value, member.min, maxSeconds*1000)
		}
	}
	if h.Retries < 1 || h.Retries > maxRetries {
		bad("healthcheck.retries: %d is not between 1 and %d", h.Retries, maxRetries)
	}
}

func (r Restart) check(bad func(format string, args ...any)) {
	if !slices.Contains([]RestartPolicy{RestartOnFailure, RestartAlways, RestartUnlessStopped}, r.Policy) {
		bad("restart.policy: %q is none of %q, %q and %q", r.Policy, RestartOnFailure, RestartAlways, RestartUnlessStopped)
	}
	if r.MaximumRetries < 0 || r.MaximumRetries > maxRetries {
		bad("restart.maximumRetries: %d is not between 0 and %d", r.MaximumRetries, maxRetries)
	}
	if r.MaximumRetries > 0 && r.Policy != RestartOnFailure {
		bad("restart.maximumRetries: means nothing for policy %q", r.Policy)
	}
}
