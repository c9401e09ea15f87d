package cradle

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
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
