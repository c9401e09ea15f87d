package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/launcher"
)

// cradle runs a command of cradle-snp's.
func cradle(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, s.command("cradle-snp", args...))
}

// detach runs the guest in dir in the background, and returns its ID.
func detach(t *testing.T, dir string) string {
	t.Helper()
	r := cradle(t, "run", "-d", "--platform", "sim", "--psp-state", s.psp, dir)
	r.want(t, 0, "attestation endpoint: 127.0.0.1:")
	t.Cleanup(func() {
		if err := launcher.Kill(t.Context(), dir); err == nil {
			t.Errorf("the guest in %s was left running", dir)
		}
	})
	return strings.TrimSpace(r.stdout)
}

func stateOf(t *testing.T, dir string) launcher.State {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, launcher.StateFile))
	if err != nil {
		t.Fatal(err)
	}
	var state launcher.State
	if err := json.Unmarshal(data, &state); err != nil {
		t.Fatal(err)
	}
	return state
}

// alive says whether a process runs; one that no one has waited for yet does not.
func alive(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// TestDetached: a guest in the background from its start to its removal.
func TestDetached(t *testing.T) {
	dir := summon(t, output, "serve", ":8080")
	id := detach(t, dir)
	if len(id) != 12 {
		t.Fatalf("ID %q", id)
	}
	cradle(t, "ps").want(t, 0, id, "Up ", " vm\n")
	cradle(t, "ps", "--quiet").want(t, 0, id+"\n")
	cradle(t, "inspect", "-f", "{{.State.Status}} {{.State.Running}}", id[:5]).want(t, 0, "running true\n")
	// Before it has a handler, a process 1 takes no SIGTERM.
	eventually(t, "the workload", func() bool { return cradle(t, "logs", dir).stdout == "serving\n" })

	// It is one guest's folder, and one launcher's.
	cradle(t, "run", "--platform", "sim", "--psp-state", s.psp, dir).want(t, 2, "the guest is running already")
	cradle(t, "run", "-d", "--platform", "sim", "--psp-state", s.psp, dir).want(t, 2, "the guest is running already")
	cradle(t, "rm", dir).want(t, 2, "the guest is running already", "hint: stop it, or give --force")

	follow := s.command("cradle-snp", "logs", "--follow", id)
	var followed buffer
	follow.Stdout = &followed
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	state := stateOf(t, dir)
	cradle(t, "stop", dir).want(t, 0, dir)
	if alive(state.PID) {
		t.Error("stop returned before QEMU ended")
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("logs --follow: %v", err)
	}
	if got, want := followed.String(), "serving\nstopped by SIGTERM\n"; got != want {
		t.Errorf("logs --follow: %q, want %q", got, want)
	}
	if r := cradle(t, "ps"); strings.Contains(r.stdout, id) {
		t.Errorf("a guest that was stopped runs:\n%s", r.stdout)
	}
	cradle(t, "ps", "-a").want(t, 0, id, "Exited (7)")
	cradle(t, "stop", dir).want(t, 2, "the guest is not running")
	cradle(t, "kill", dir).want(t, 2, "the guest is not running")

	cradle(t, "rm", id).want(t, 0, id)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	if r := cradle(t, "ps", "--all"); strings.Contains(r.stdout, id) {
		t.Errorf("a guest that was removed is listed:\n%s", r.stdout)
	}
	cradle(t, "logs", id).want(t, 2, "no such VM")
}

// TestDetachedOutput: what a container printed is there after its end, line by
// line, and --rm leaves nothing of it.
func TestDetachedOutput(t *testing.T) {
	dir := summon(t, output, "self")
	detach(t, dir)
	eventually(t, "the end", func() bool {
		return strings.Contains(cradle(t, "ps", "-a").stdout, "Exited (0)")
	})
	whole := cradle(t, "logs", dir)
	whole.want(t, 0, `"Hostname":"cradle"`)
	cradle(t, "logs", "--tail", "0", dir).want(t, 0)
	if r := cradle(t, "logs", "--tail", "1", "-t", dir); !strings.HasPrefix(r.stdout, time.Now().UTC().Format("2006-")) {
		t.Errorf("with times: %q", r.stdout)
	}
	if r := cradle(t, "logs", "--since", "0s", dir); r.stdout != "" {
		t.Errorf("since now: %q", r.stdout)
	}
	if r := cradle(t, "logs", "--until", "1h", dir); r.stdout != "" {
		t.Errorf("until an hour ago: %q", r.stdout)
	}
	cradle(t, "logs", "--console", dir).want(t, 0, "agent")

	cradle(t, "run", "--rm", "-q", "--platform", "sim", "--psp-state", s.psp, dir).want(t, 0, `"Hostname":"cradle"`)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("--rm left the folder: %v", err)
	}
}

// TestDetachedFails: why there is no guest is said by the command that was to
// start one, with the exit code of the foreground.
func TestDetachedFails(t *testing.T) {
	dir := summon(t, nil, "self")
	r := cradle(t, "run", "-d", "--platform", "sim", "--psp-state", s.psp, "--boot-timeout", "1ms", dir)
	r.want(t, 1, "was not started within 1ms")
	if r.stdout != "" {
		t.Errorf("an ID: %q", r.stdout)
	}
	cradle(t, "ps", "-a").want(t, 0, "Failed ")
	cradle(t, "inspect", dir).want(t, 0, `"error": "the container was not started within 1ms`)
}

// TestKilledLauncher: a launcher that is killed leaves no QEMU, and a folder that
// can be run, and removed.
func TestKilledLauncher(t *testing.T) {
	dir := summon(t, output, "serve", ":8080")
	detach(t, dir)
	state := stateOf(t, dir)
	if !alive(state.PID) {
		t.Fatal("no QEMU runs")
	}
	if err := syscall.Kill(state.Launcher, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "QEMU's end", func() bool { return !alive(state.PID) })
	cradle(t, "ps", "-a").want(t, 0, "Dead")
	cradle(t, "stop", dir).want(t, 2, "the guest is not running")

	detach(t, dir)
	if again := stateOf(t, dir); !alive(again.PID) || again.PID == state.PID {
		t.Errorf("the second run: %+v", again)
	}
	cradle(t, "rm", "-f", dir).want(t, 0, dir)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

// TestEndings: however a guest ends, its folder is at rest afterwards, and says
// how it ended.
func TestEndings(t *testing.T) {
	dir := summon(t, nil, "serve", ":8080")
	atRest, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		end    func(launcher.State)
		status string
	}{
		"QEMU is killed": {func(s launcher.State) { _ = syscall.Kill(s.PID, syscall.SIGKILL) }, "Failed "},
		"kill":           {func(launcher.State) { cradle(t, "kill", dir).want(t, 0) }, "Killed "},
		"kill, stop and a signal at once": {func(s launcher.State) {
			var all sync.WaitGroup
			for _, command := range []string{"kill", "stop"} {
				all.Go(func() { _ = cradle(t, command, dir) }) // the second may come too late
			}
			_ = syscall.Kill(s.Launcher, syscall.SIGTERM)
			all.Wait()
		}, "ed "},
	} {
		t.Run(name, func(t *testing.T) {
			detach(t, dir)
			state := stateOf(t, dir)
			tt.end(state)
			eventually(t, "the end", func() bool { return !alive(state.PID) && !alive(state.Launcher) })
			cradle(t, "ps", "-a").want(t, 0, tt.status)
			left, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range left {
				known := slices.ContainsFunc(atRest, func(a os.DirEntry) bool { return a.Name() == e.Name() })
				if !known && e.Name() != launcher.EndFile && e.Name() != launcher.ConsoleFile {
					t.Errorf("%s is left", e.Name())
				}
			}
		})
	}
}

// TestFullDisk: neither summon nor run breaks a folder for want of room.
func TestFullDisk(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=1M"); err != nil {
		t.Skipf("a small disk needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(small, "vm")
	cradle(t, "summon", "--stack", s.stack, dir, s.layout, "exit", "3").want(t, 1, "no space for the image's files")
	left, err := os.ReadDir(small)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", syscall.MS_REMOUNT, "size=16M"); err != nil {
		t.Fatal(err)
	}
	cradle(t, "summon", "--stack", s.stack, dir, s.layout, "exit", "3").want(t, 0)
	filler := filepath.Join(small, "filler")
	if err := os.WriteFile(filler, make([]byte, 32<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	boot(t, dir).want(t, 1, "no space left", "hint: the disk that holds DIR is full")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	boot(t, dir).want(t, 3)
}
