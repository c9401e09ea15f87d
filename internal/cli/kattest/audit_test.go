package kattest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
)

// Scripts find a boot stack in $WORK/stack, and may use exits and flip.
func TestAuditScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/audit",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			return errors.Join(clitest.WriteStack(filepath.Join(env.WorkDir, "stack"), "console=ttyS0 quiet"), clitest.Probed(env, true))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": clitest.Exits, "flip": clitest.Flip},
	})
}
