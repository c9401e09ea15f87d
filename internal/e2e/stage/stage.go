// Package stage makes what tests that boot guests have in common: the commands, a boot
// stack, a release of it, the workload's image and a simulated PSP. It is for tests
// alone, two folders below the repository's root.
package stage

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kraudcloud/kattest/internal/e2e/layout"
	"github.com/kraudcloud/kattest/launcher/simpsp"
)

// Stage names what was made, in absolute paths.
type Stage struct {
	Dir     string // all but a boot stack that was there
	Bin     string // folder of the commands
	Stack   string // the boot stack's folder: KATTEST_STACK's, else built
	Layout  string // OCI layout of the workload's image
	PSP     string // the simulated PSP's folder
	Key     string // the release's private key and
	Pub     string // its public one, PEM
	Release string // the release's bundle, for one vCPU of EPYC-v4
}

// New makes a stage in dir, with these commands of cmd/. XDG_STATE_HOME is within it
// from then on, so that the user's own index of VMs is left alone.
func New(dir string, commands ...string) (*Stage, error) {
	path := func(name string) string { return filepath.Join(dir, name) }
	s := &Stage{Dir: dir, Bin: path("bin"), Stack: os.Getenv("KATTEST_STACK"), Layout: path("layout"), PSP: path("psp"), Release: path("release.sigstore.json")}
	if err := os.Setenv("XDG_STATE_HOME", path("state")); err != nil {
		return nil, err
	}
	build := []string{"go", "build", "-o", s.Bin + "/"}
	for _, name := range commands {
		build = append(build, "./cmd/"+name)
	}
	steps := [][]string{build, {"go", "build", "-trimpath", "-ldflags=-s -w", "-o", path("workload"), "./internal/e2e/workload"}}
	if s.Stack == "" {
		s.Stack = path("stack")
		steps = append(steps, []string{s.Bin + "/kattest", "build", "--out", s.Stack})
	}
	for _, step := range steps {
		if err := do(step...); err != nil {
			return nil, err
		}
	}
	var err error
	if s.Key, s.Pub, err = s.KeyPair("release"); err != nil {
		return nil, err
	}
	if err := do(s.Bin+"/kattest", "measure", "--stack", s.Stack, "--vcpus", "1", "--cpu", "EPYC-v4", "--sign", s.Key, "--bundle", s.Release); err != nil {
		return nil, err
	}
	if _, err := simpsp.Load(s.PSP); err != nil {
		return nil, err
	}
	return s, layout.Write(s.Layout, path("workload"))
}

// KeyPair makes NAME.key and NAME.pub, a P-256 key pair in PEM, and returns their paths.
func (s *Stage) KeyPair(name string) (private, public string, err error) {
	private, public = filepath.Join(s.Dir, name+".key"), filepath.Join(s.Dir, name+".pub")
	err = do("openssl", "genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", private)
	if err == nil {
		err = do("openssl", "pkey", "-in", private, "-pubout", "-out", public)
	}
	return private, public, err
}

// do runs a command in the repository's root.
func do(line ...string) error {
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(line, " "), err, out)
	}
	return nil
}
