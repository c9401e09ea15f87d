// Package e2e boots whole guests on the simulated platform, with the commands
// as users run them, and shows that each lie of a host is refused. On a machine
// without KVM the guests run under TCG.
package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/internal/e2e/stage"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// suite is what all tests share: made once, never changed.
type suite struct {
	bin     string // kattest and cradle-snp
	stack   string // the boot stack
	layout  string // the workload's OCI layout
	psp     string // the simulated PSP's folder
	key     string // the release's key pair, and another one
	pub     string
	other   string
	release string
}

var s suite

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv(usageOf) != "" {
		return sayUsage()
	}
	dir, err := os.MkdirTemp("", "kattest-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := s.make(dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: setting up:", err)
		return 1
	}
	return m.Run()
}

func (s *suite) make(dir string) error {
	made, err := stage.New(dir, "kattest", "kattest-keyless", "kattest-log", "cradle-snp")
	if err != nil {
		return err
	}
	*s = suite{bin: made.Bin, stack: made.Stack, layout: made.Layout, psp: made.PSP, key: made.Key, pub: made.Pub, release: made.Release}
	_, s.other, err = made.KeyPair("other")
	return err
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	exit           int
}

func (s *suite) command(name string, args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(s.bin, name), args...)
}

func run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// want fails the test unless the command ended with that status and said all of texts.
func (r result) want(t *testing.T, exit int, texts ...string) {
	t.Helper()
	if r.exit != exit {
		t.Errorf("exit status %d, want %d", r.exit, exit)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("nothing says %q", text)
		}
	}
	if t.Failed() {
		t.Fatalf("standard output:\n%s\nstandard error:\n%s", r.stdout, r.stderr)
	}
}

// summon makes a guest's folder from the workload's image.
func summon(t *testing.T, options []string, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vm")
	line := append([]string{"summon", "--stack", s.stack}, options...)
	line = append(line, dir, s.layout)
	run(t, s.command("cradle-snp", append(line, args...)...)).want(t, 0)
	return dir
}

// output is the option by which a test sees what its workload prints.
var output = []string{"--console", "output"}

// boot runs the guest in dir to its end.
func boot(t *testing.T, dir string) result {
	t.Helper()
	return run(t, s.command("cradle-snp", "run", "--platform", "sim", "--psp-state", s.psp, dir))
}

// lie runs the guest in dir by the launcher itself, with claims of the host's
// that no command makes, and without its checks of the folder.
func lie(t *testing.T, dir string, claims launcher.Claims) error {
	t.Helper()
	v, err := vm.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	_, err = launcher.Run(context.Background(), v, launcher.Options{
		Platform: launcher.Sim, PSPState: s.psp, Console: &console, Claims: claims,
	})
	if err == nil {
		t.Fatalf("the guest ran\n%s", console.String())
	}
	return err
}

// guest is a running guest.
type guest struct {
	dir   string
	cmd   *exec.Cmd
	out   *buffer
	state launcher.State
	done  chan struct{}
}

// start runs the guest in dir in the background, until its container runs. The
// environment is the test's and env.
func start(t *testing.T, dir string, env ...string) *guest {
	t.Helper()
	return startUntil(t, dir, "started", env...)
}

// startUntil is start, until the guest says something else.
func startUntil(t *testing.T, dir, event string, env ...string) *guest {
	t.Helper()
	cmd := s.command("cradle-snp", "run", "--platform", "sim", "--psp-state", s.psp, dir)
	cmd.Env = append(os.Environ(), env...)
	return startCommand(t, dir, event, cmd)
}

// startCommand is startUntil, by a command of the caller's.
func startCommand(t *testing.T, dir, event string, cmd *exec.Cmd) *guest {
	t.Helper()
	g := &guest{dir: dir, cmd: cmd, out: &buffer{}, done: make(chan struct{})}
	g.cmd.Stdout, g.cmd.Stderr = g.out, g.out
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(g.done)
		_ = g.cmd.Wait() // ExitCode tells
	}()
	t.Cleanup(func() {
		_ = g.cmd.Process.Kill()
		<-g.done
	})
	for !strings.Contains(g.out.String(), "s "+event+"\n") {
		select {
		case <-g.done:
			t.Fatalf("the guest ended:\n%s", g.out)
		case <-time.After(50 * time.Millisecond):
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, launcher.StateFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &g.state); err != nil {
		t.Fatal(err)
	}
	return g
}

// stop asks the launcher to stop the guest, as Ctrl-C does.
func (g *guest) stop(t *testing.T) result {
	t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-g.done
	return result{stdout: g.out.String(), exit: g.cmd.ProcessState.ExitCode()}
}

// attest challenges the guest and judges the answer against the release and
// the spec in the file given; the evidence is kept in the file returned.
func (g *guest) attest(t *testing.T, spec string, more ...string) (result, string) {
	t.Helper()
	evidence := filepath.Join(t.TempDir(), "evidence.json")
	line := append([]string{"attest", "--save", evidence}, s.references(spec)...)
	return run(t, s.command("kattest", append(append(line, more...), g.state.Agent.String())...)), evidence
}

// references are the options that name everything a guest is judged by, but
// the nonce.
func (s *suite) references(spec string) []string {
	return []string{
		"--release", s.release, "--key", s.pub, "--spec", spec,
		"--trust-simulated", filepath.Join(s.psp, simpsp.ChainFile),
	}
}

func nonce(t *testing.T) string {
	t.Helper()
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails, by its documentation
	return hex.EncodeToString(b)
}

// buffer is written to by a command while a test reads it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
