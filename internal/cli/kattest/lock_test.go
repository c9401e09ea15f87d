package kattest_test

import (
	"archive/zip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
)

// Scripts run with an apt that knows no mirrors and a go that knows none unless
// it is led to the folder proxy, and may use:
//
//	exits CODE COMMAND [ARG...]  run a command that must end with that exit code
func TestLockScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/lock",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("APT_CONFIG", filepath.Join(env.WorkDir, "no-apt.conf"))
			env.Setenv("GOPROXY", "off")
			env.Setenv("GOCACHE", filepath.Join(env.WorkDir, "gocache"))
			env.Setenv("GOMODCACHE", filepath.Join(env.WorkDir, "gomodcache"))
			return moduleZip(filepath.Join(env.WorkDir, "proxy/example.com/m/@v/v1.0.0.zip"))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": clitest.Exits},
	})
}

// moduleZip writes the zip file of example.com/m@v1.0.0, which holds its go.mod.
func moduleZip(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	z := zip.NewWriter(f)
	w, err := z.Create("example.com/m@v1.0.0/go.mod")
	if err == nil {
		_, err = io.WriteString(w, "module example.com/m\n")
	}
	return errors.Join(err, z.Close(), f.Close())
}
