package kattest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/launcher/simpsp"
)

// Scripts find what those of verify do, and may use:
//
//	setdigest VARIABLE COMMAND...  put what a command prints into a variable
//	recmdline FOLDER CMDLINE       change a stack's command line
func TestExplainScripts(t *testing.T) {
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/explain",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup:         func(env *testscript.Env) error { return makeAnswer(env, psp) },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "recmdline": changeCmdline, "setdigest": setDigest,
		},
	})
}

// setDigest VARIABLE COMMAND... puts what a command prints into a variable.
func setDigest(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec(args[1], args[2:]...))
	digest := ts.ReadFile("stdout")
	ts.Setenv(args[0], digest[:len(digest)-1])
}
