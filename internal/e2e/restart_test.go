package e2e

import (
	"strings"
	"testing"
)

// A workload that fails is started again as often as the spec says, and the guest ends
// with the last exit status.
func TestRestart(t *testing.T) {
	for _, tt := range []struct {
		policy   string
		restarts int
	}{{"no", 0}, {"on-failure:2", 2}} {
		t.Run(tt.policy, func(t *testing.T) {
			r := boot(t, summon(t, []string{"--restart", tt.policy}, "exit", "3"))
			r.want(t, 3)
			if got := strings.Count(r.stderr, "msg=restarting"); got != tt.restarts {
				t.Errorf("%d restarts, want %d:\n%s", got, tt.restarts, r.stderr)
			}
		})
	}
}

// A terminal ends lines as terminals do; a pipe does not.
func TestTerminal(t *testing.T) {
	for option, ending := range map[string]string{"--tty": " bytes\r\n", "--tty=false": " bytes\n"} {
		t.Run(option, func(t *testing.T) {
			r := boot(t, summon(t, append([]string{option}, output...), "read", "/etc/text"))
			r.want(t, 0)
			if !strings.HasSuffix(r.stdout, ending) {
				t.Errorf("standard output is %q", r.stdout)
			}
		})
	}
}
