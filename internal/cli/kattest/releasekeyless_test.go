package kattest

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
)

// What kattest-keyless says reaches the user with its meaning, and moves no cursor.
func TestKeylessError(t *testing.T) {
	ended := func(script string) error { return exec.Command("sh", "-c", script).Run() }
	for _, tt := range []struct {
		script    string
		signature bool
		code      int // of a *cli.Error, 0 for none
		text      string
	}{
		{"exit 3", true, 0, "SAN a?[2Jb"},
		{"exit 2", false, cli.ExitUsage, "SAN a?[2Jb"},
		{"exit 1", false, 0, "kattest-keyless: exit status 1"},
		{"kill -9 $$", false, 0, "signal: killed"},
	} {
		err := keylessError(context.Background(), ended(tt.script), "kattest-keyless: error: SAN a\x1b[2Jb\nkattest-keyless: hint: x\n")
		code := 0
		if e, ok := errors.AsType[*cli.Error](err); ok {
			code = e.Code
		}
		if errors.Is(err, release.ErrSignature) != tt.signature || code != tt.code || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "hint") {
			t.Errorf("%s: %v, code %d", tt.script, err, code)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := keylessError(ctx, ended("kill -9 $$"), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}
