// Package hostile plays the host, on the simulated platform: it lies to guests that
// boot, to their agents, and to the clients that judge them. Each lie is refused at
// its place and with a reason that names it, or is borne because it changes nothing
// that matters; each family has a twin without the lie, which succeeds.
//
// What boots runs under TCG where there is no KVM. A host's access to the memory and
// registers of its guest is what SEV-SNP denies it: nothing here can show that. Other
// lies that boot are told in internal/e2e, beside what they are about: to the kernel by
// ACPI tables, to the measurement by altered components, to volumes by altered disks.
package hostile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/internal/e2e/stage"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// suite is what all tests share: made once, never changed.
type suite struct {
	bin      string // kattest and cradle-snp
	shim     string // a folder with what takes QEMU's place: see host
	stack    string // the boot stack
	layout   string // the workload's OCI layout
	psp      string // the simulated PSP's folder
	key, pub string // the release's
	release  string
	owner, ownerPub,
	other, otherPub string // an owner's key pair, and a stranger's
}

var s suite

func TestMain(m *testing.M) {
	if name := os.Getenv(lieEnv); name != "" {
		os.Exit(playHost(name, os.Args[1:]))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kattest-hostile-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := s.make(dir); err != nil {
		fmt.Fprintln(os.Stderr, "hostile: setting up:", err)
		return 1
	}
	return m.Run()
}

func (s *suite) make(dir string) error {
	made, err := stage.New(dir, "kattest", "cradle-snp")
	if err != nil {
		return err
	}
	*s = suite{
		bin: made.Bin, shim: filepath.Join(dir, "shim"), stack: made.Stack, layout: made.Layout, psp: made.PSP,
		key: made.Key, pub: made.Pub, release: made.Release,
	}
	if s.owner, s.ownerPub, err = made.KeyPair("owner"); err != nil {
		return err
	}
	if s.other, s.otherPub, err = made.KeyPair("other"); err != nil {
		return err
	}
	return s.makeShim()
}

// makeShim makes this program QEMU to whoever looks for it in the folder.
func (s *suite) makeShim() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	qemu, err := exec.LookPath(launcher.QEMU)
	if err != nil {
		return err
	}
	if err := os.Mkdir(s.shim, 0o700); err != nil {
		return err
	}
	script := fmt.Sprintf("#!/bin/sh\n%s='%s' %s='%s' exec '%s' \"$@\"\n", qemuEnv, qemu, pspEnv, s.psp, self)
	return os.WriteFile(filepath.Join(s.shim, launcher.QEMU), []byte(script), 0o700)
}

// result is how a command ended.
type result struct {
	said string // on both its streams
	exit int
}

func run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return result{out.String(), cmd.ProcessState.ExitCode()}
}

// want fails the test unless the command ended with that status and said all of texts.
func (r result) want(t *testing.T, exit int, texts ...string) {
	t.Helper()
	if r.exit != exit {
		t.Errorf("exit status %d, want %d", r.exit, exit)
	}
	for _, text := range texts {
		if !strings.Contains(r.said, text) {
			t.Errorf("nothing says %q", text)
		}
	}
	if t.Failed() {
		t.Fatal(r.said)
	}
}

// kattest is the command, with what a guest is judged by.
func kattest(verb, spec string, args ...string) *exec.Cmd {
	line := append([]string{
		verb, "--release", s.release, "--key", s.pub, "--spec", spec,
		"--trust-simulated", filepath.Join(s.psp, simpsp.ChainFile),
	}, args...)
	return exec.Command(filepath.Join(s.bin, "kattest"), line...)
}

// summon makes a guest's folder, and returns it.
func summon(t *testing.T, options []string, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vm")
	line := append([]string{"summon", "--stack", s.stack, "--console", "output"}, options...)
	line = append(append(line, dir, s.layout), args...)
	run(t, exec.Command(filepath.Join(s.bin, "cradle-snp"), line...)).want(t, 0)
	return dir
}

// guest is a command that runs the guest in dir, on a host that tells that lie.
func guest(dir, lie string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, "cradle-snp"), "run", "--platform", "sim", "--psp-state", s.psp, dir)
	cmd.Env = append(os.Environ(), "PATH="+s.shim+":"+os.Getenv("PATH"), lieEnv+"="+lie)
	return cmd
}

// lost is how Linux ends at the start where TCG, on a busy machine, has kept its timer
// waiting: such a guest has seen nothing of the host's lie, and is booted again.
const lost = "IO-APIC + timer doesn't work"

const attempts = 5

// boot runs a copy of the guest in dir to its end, on a host that tells that lie. It
// returns what stands on the guest's console, too.
func boot(t *testing.T, dir, lie string) (r result, console string) {
	t.Helper()
	for range attempts {
		own := clone(t, dir)
		r = run(t, guest(own, lie))
		data, err := os.ReadFile(filepath.Join(own, launcher.ConsoleFile))
		if err != nil {
			t.Fatalf("%v\n%s", err, r.said)
		}
		if console = string(data); !strings.Contains(console, lost) {
			break
		}
	}
	return r, console
}

// running is a guest that serves.
type running struct {
	dir   string // its folder
	spec  string // its launch spec's file
	agent string // its address
}

// start runs a copy of the guest in dir in the background, on a host that tells that
// lie, until its agent serves.
func start(t *testing.T, dir, lie string) running {
	t.Helper()
	said := ""
	for range attempts {
		own := clone(t, dir)
		if said = serve(t, own, lie); said == "" {
			data, err := os.ReadFile(filepath.Join(own, launcher.StateFile))
			if err != nil {
				t.Fatal(err)
			}
			var state launcher.State
			if err := json.Unmarshal(data, &state); err != nil {
				t.Fatal(err)
			}
			return running{own, filepath.Join(own, vm.SpecFile), state.Agent.String()}
		}
		if !strings.Contains(said, lost) {
			break
		}
	}
	t.Fatalf("the guest ended:\n%s", said)
	return running{}
}

// serve returns what the guest said if it ends before its agent serves.
func serve(t *testing.T, dir, lie string) string {
	t.Helper()
	cmd := guest(dir, lie)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for {
		console, _ := os.ReadFile(filepath.Join(dir, launcher.ConsoleFile)) // not there yet
		if bytes.Contains(console, []byte("msg=step name=evidence")) {
			return ""
		}
		select {
		case <-ended:
			return out.String() + "."
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// clone copies a guest's folder, and returns the copy.
func clone(t *testing.T, dir string) string {
	t.Helper()
	own := filepath.Join(t.TempDir(), "vm")
	if err := os.CopyFS(own, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return own
}
