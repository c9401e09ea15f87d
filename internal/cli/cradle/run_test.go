package cradle

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// TestRunScripts runs testdata/run; KATTEST_UPDATE=1 rewrites what they compare
// with. Beside testscript's own, the scripts have
//
//	exits CODE ARG...  cradle-snp ARG... must end with that exit code
//	mkvm DIR           makes a VM folder with a boot stack that parses and does nothing
//	flip FILE          changes the last byte
//
// and the condition sev, for a host with a secure processor.
func TestRunScripts(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir()) // the user's own index of VMs is left alone
	testscript.Run(t, runParams("run"))
}

// runParams are what the scripts in a folder of testdata are run with.
func runParams(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 filepath.Join("testdata", dir),
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("KATTEST_UPDATE") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"mkvm": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(makeVM(ts.MkAbs(args[0]), ts.MkAbs("stack")))
			},
			"flip": func(ts *testscript.TestScript, _ bool, args []string) {
				data, err := os.ReadFile(ts.MkAbs(args[0]))
				ts.Check(err)
				data[len(data)-1] ^= 1
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
			},
		},
		Condition: func(name string) (bool, error) {
			if name != "sev" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			_, err := os.Stat("/dev/sev")
			return err == nil, nil
		},
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := cli.Main(New(), args[1:], strings.NewReader(""), ts.Stdout(), ts.Stderr()); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func makeVM(dir, stackDir string) error {
	if err := clitest.WriteStack(stackDir, "console=ttyS0 it's"); err != nil {
		return err
	}
	return vm.Create(dir, vm.DefaultConfig(), stackDir, func(root *os.File) (pod.Spec, error) {
		_, err := root.Write(make([]byte, vm.BlockSize))
		return pod.Spec{
			MediaType: pod.MediaType,
			Image: pod.Image{
				Digest: "sha256:" + strings.Repeat("1", 64),
				Verity: pod.Verity{RootHash: pod.Hash{1}, DataBlocks: 1},
			},
			Process: pod.Process{Args: []string{"/bin/true"}, Env: []string{}, WorkingDir: "/", Capabilities: []string{}, StopSignal: "SIGTERM"},
			Network: pod.Network{Hostname: "guest"},
			Console: pod.ConsoleNone,
		}, err
	})
}
