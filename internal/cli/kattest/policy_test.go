package kattest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/launcher/simpsp"
)

// Scripts find what those of verify do, and v2.bin, the same report as one of
// version 2, whose signature does not hold.
func TestPolicyScripts(t *testing.T) {
	psp, err := simpsp.Load(filepath.Join(t.TempDir(), "psp"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/policy",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			if err := makeAnswer(env, psp); err != nil {
				return err
			}
			report, err := os.ReadFile(filepath.Join(env.WorkDir, "bare.bin"))
			if err != nil {
				return err
			}
			if report[0] != 3 {
				return errors.New("the simulated report is not of version 3")
			}
			report[0] = 2
			clear(report[0x188:0x18b]) // version 2 has no family, model and stepping
			return os.WriteFile(filepath.Join(env.WorkDir, "v2.bin"), report, 0o600)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip,
		},
	})
}
