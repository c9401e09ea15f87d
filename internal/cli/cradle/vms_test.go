package cradle

import (
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher"
)

// TestVMScripts runs testdata/vms, as TestRunScripts does.
func TestVMScripts(t *testing.T) {
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	params := runParams("vms")
	params.Setup = func(env *testscript.Env) error { // of the program itself, which --detach starts again
		env.Setenv("XDG_STATE_HOME", state)
		return nil
	}
	testscript.Run(t, params)
}

func TestSentence(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for want, s := range map[string]inspectedState{
		"Up 3 hours":                      {phase: launcher.Running, StartedAt: now.Add(-3*time.Hour - time.Minute)},
		"Up 119 minutes":                  {phase: launcher.Running, StartedAt: now.Add(-119 * time.Minute)},
		"Up 0 seconds":                    {phase: launcher.Running, StartedAt: now.Add(time.Hour)}, // a clock that was set back
		"Up 2 minutes (healthy)":          {phase: launcher.Running, StartedAt: now.Add(-2 * time.Minute), Health: &health{port.Healthy}},
		"Up 5 seconds (unhealthy)":        {phase: launcher.Running, StartedAt: now.Add(-5 * time.Second), Health: &health{port.Unhealthy}},
		"Up 5 seconds (health: starting)": {phase: launcher.Running, StartedAt: now.Add(-5 * time.Second), Health: &health{port.HealthStarting}},
		"Starting":                        {phase: launcher.Starting},
		"Exited (137) 2 days ago":         {phase: launcher.Exited, ExitCode: 137, FinishedAt: now.Add(-71 * time.Hour)},
		"Killed 2 minutes ago":            {phase: launcher.Exited, Error: "stopped", stopped: true, FinishedAt: now.Add(-2 * time.Minute)},
		"Failed 119 seconds ago":          {phase: launcher.Exited, Error: "no", FinishedAt: now.Add(-119 * time.Second)},
		"Dead":                            {phase: launcher.Dead},
		"Created":                         {phase: launcher.Created},
	} {
		if got := s.sentence(now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"":                     {},
		"90m":                  now.Add(-90 * time.Minute),
		"2026-11-23T11:00:00Z": now.Add(-time.Hour),
	} {
		if got, err := parseTime(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"yesterday", "5", "2026-13-01"} {
		if got, err := parseTime(in, now); err == nil || !got.IsZero() {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}
