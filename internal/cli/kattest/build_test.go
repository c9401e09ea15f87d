package kattest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
)

// What a build makes is tested where the boot stack is booted, in internal/e2e.
// Scripts run with an apt that knows no mirrors, and may use:
//
//	exits CODE COMMAND [ARG...]  run a command that must end with that exit code
func TestBuildScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/build",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("APT_CONFIG", filepath.Join(env.WorkDir, "no-apt.conf"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": clitest.Exits},
	})
}
