package kattest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/internal/cli/kattest"
	"github.com/kraudcloud/kattest/internal/cli/keyless"
	"github.com/kraudcloud/kattest/internal/cli/logs"
	"github.com/kraudcloud/kattest/measure/release"
)

// Scripts run kattest, and kattest-keyless and kattest-log beside it.
func TestMain(m *testing.M) {
	run := func(root *cobra.Command) {
		os.Exit(cli.Main(root, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	testscript.Main(m, map[string]func(){
		"kattest":         func() { run(kattest.New(os.Args[1:]...)) },
		"kattest-keyless": func() { run(keyless.New()) },
		"kattest-log":     func() { run(logs.New()) },
	})
}

// Scripts find a boot stack in $WORK/stack, and may use:
//
//	exits CODE COMMAND [ARG...]  run a command that must end with that exit code
//	flip FILE OFFSET             change one byte
//	differ FILE...               no two of the files are alike
//	contains FILE LINES          each line of LINES stands in FILE
//	opens BUNDLE PUB             the release opens with that key
func TestMeasureScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/measure",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			return errors.Join(clitest.WriteStack(filepath.Join(env.WorkDir, "stack"), "console=ttyS0 quiet"), clitest.Probed(env, true))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip, "differ": measureDiffer, "contains": measureContains, "opens": measureOpens,
		},
	})
}

func measureDiffer(ts *testscript.TestScript, _ bool, args []string) {
	seen := map[string]string{}
	for _, name := range args {
		data := ts.ReadFile(name)
		if other, ok := seen[data]; ok {
			ts.Fatalf("%s and %s are alike", name, other)
		}
		seen[data] = name
	}
}

func measureContains(ts *testscript.TestScript, _ bool, args []string) {
	data, lines := ts.ReadFile(args[0]), strings.Fields(ts.ReadFile(args[1]))
	if len(lines) == 0 {
		ts.Fatalf("%s is empty", args[1])
	}
	for _, line := range lines {
		if !strings.Contains(data, line) {
			ts.Fatalf("%s has no %q", args[0], line)
		}
	}
}

func measureOpens(ts *testscript.TestScript, neg bool, args []string) {
	key, err := release.ParsePublicKey([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	r, err := release.Open([]byte(ts.ReadFile(args[0])), key)
	if neg {
		if !errors.Is(err, release.ErrSignature) {
			ts.Fatalf("error %v, want %v", err, release.ErrSignature)
		}
		return
	}
	ts.Check(err)
	if len(r.Components) != 3 || len(r.Table) != 4 || r.Cmdline != "console=ttyS0 quiet" {
		ts.Fatalf("release: %+v", r)
	}
}
