package kattest_test

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
)

// Scripts find the files of testdata/igvm/*.igvm.gz, decompressed. They are those
// of measure/igvm's tests, files_test.go; signed.igvm is plain.igvm as igvmmeasure
// signed it.
func TestIGVMScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/igvm",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			names, err := filepath.Glob(filepath.Join("testdata", "igvm", "*.gz"))
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := decompress(name, filepath.Join(env.WorkDir, strings.TrimSuffix(filepath.Base(name), ".gz"))); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": clitest.Exits, "flip": clitest.Flip,
		},
	})
}

func decompress(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}
