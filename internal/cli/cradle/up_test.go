package cradle

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/internal/cli/cradle/compose"
	"github.com/kraudcloud/kattest/launcher"
)

// TestUpScripts runs testdata/up, as TestRunScripts does, with a boot stack.
func TestUpScripts(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	stack := t.TempDir()
	if err := clitest.WriteStack(stack, "console=ttyS0"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KATTEST_STACK", stack)
	testscript.Run(t, runParams("up"))
}

// TestFollow: up says how each service ended, and is content if all ended well.
func TestFollow(t *testing.T) {
	ends := map[string]launcher.End{
		"well":    {},
		"badly":   {Exit: 3},
		"killed":  {Error: "stopped before the container ended", Stopped: true},
		"refused": {Error: "the guest refused: no"},
	}
	for _, tt := range []struct {
		services, want []string // want of standard error
		err            string
	}{
		{[]string{"well"}, []string{"p-well: ended with 0\n"}, ""},
		{[]string{"badly"}, []string{"p-badly: its container ended with 3\n"}, "services.badly: its container ended with 3"},
		{[]string{"killed"}, []string{"p-killed: it was killed\n"}, "services.killed: it was killed"},
		{
			[]string{"refused", "well"},
			[]string{"p-refused: the guest refused: no\n", "p-well: ended with 0\n"},
			"services.refused: the guest refused: no",
		},
	} {
		t.Run(strings.Join(tt.services, ","), func(t *testing.T) {
			p := &project{folder: t.TempDir()}
			for _, name := range tt.services {
				s := compose.Service{Name: name, Guest: "p-" + name}
				p.Services = append(p.Services, s)
				writeEnd(t, p.dir(s), ends[name])
			}
			cmd := &cobra.Command{}
			cmd.SetContext(t.Context())
			var stderr bytes.Buffer
			cmd.SetErr(&stderr)
			said := ""
			if err := p.follow(cmd); err != nil {
				said = err.Error()
			}
			if said != tt.err {
				t.Errorf("error %q, want %q", said, tt.err)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("%q is not in:\n%s", want, stderr.String())
				}
			}
		})
	}
}

// writeEnd makes a folder of a guest whose run ended so.
func writeEnd(t *testing.T, dir string, e launcher.End) {
	t.Helper()
	e.MediaType, e.Began, e.Ended = launcher.EndMediaType, time.Now(), time.Now()
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, launcher.EndFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMeets(t *testing.T) {
	completed, healthy := compose.Dependency{Completed: true}, compose.Dependency{Healthy: true}
	running := func(h port.Health) launcher.Status {
		return launcher.Status{Phase: launcher.Running, State: launcher.State{Health: h}}
	}
	ended := func(e launcher.End) launcher.Status { return launcher.Status{Phase: launcher.Exited, End: e} }
	for _, tt := range []struct {
		name   string
		status launcher.Status
		d      compose.Dependency
		met    bool
		err    string // empty: none
	}{
		{"it runs", running(""), completed, false, ""},
		{"it ended", ended(launcher.End{}), completed, true, ""},
		{"it failed", ended(launcher.End{Exit: 3}), completed, false, "it did not end well: exited, exit status 3 "},
		{"it was refused", ended(launcher.End{Error: "no"}), completed, false, "it did not end well: exited, exit status 0 no"},
		{"nothing said yet", running(""), healthy, false, ""},
		{"starting", running(port.HealthStarting), healthy, false, ""},
		{"healthy", running(port.Healthy), healthy, true, ""},
		{"unhealthy", running(port.Unhealthy), healthy, false, "it is unhealthy"},
		{"over", ended(launcher.End{}), healthy, false, "it is not healthy: exited"},
		{"its launcher was killed", launcher.Status{Phase: launcher.Dead, State: launcher.State{Health: port.Healthy}}, healthy, false, "it is not healthy: dead"},
	} {
		met, err := meets(tt.status, tt.d)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if met != tt.met || said != tt.err {
			t.Errorf("%s: %v, %q; want %v, %q", tt.name, met, said, tt.met, tt.err)
		}
	}
}
