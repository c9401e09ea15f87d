package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/launcher"
)

// ownerKey makes a key pair.
func ownerKey(t *testing.T) (private, public string) {
	t.Helper()
	dir := t.TempDir()
	private, public = filepath.Join(dir, "key"), filepath.Join(dir, "pub")
	run(t, exec.Command("openssl", "genpkey", "-quiet", "-algorithm", "ed25519", "-out", private)).want(t, 0)
	run(t, exec.Command("openssl", "pkey", "-in", private, "-pubout", "-out", public)).want(t, 0)
	return private, public
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// waitFor waits until the guest has said something.
func (g *guest) waitFor(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(g.out.String(), text); time.Sleep(50 * time.Millisecond) {
		select {
		case <-g.done:
			t.Fatalf("the guest ended:\n%s", g.out)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q:\n%s", text, g.out)
		}
	}
}

// The workload starts when its owner has handed over what it waits for, and has it in
// a file and a variable. Nobody else has.
func TestUnlock(t *testing.T) {
	private, public := ownerKey(t)
	stranger, _ := ownerKey(t)
	const password, token = "hunter2-and-more", "token-1234567"
	dir := summon(t, append(output, "--owner", public, "--secret", "password,mode=440", "--secret", "token,env=TOKEN"),
		"told", "/run/secrets/password", "TOKEN", "127.0.0.1:8080")
	g := startUntil(t, dir, "serving")
	spec := dir + "/spec.json"
	unlock := func(key, spec string, secrets ...string) result {
		t.Helper()
		line := append([]string{"unlock", g.state.Agent.String(), "--sign", key}, s.references(spec)...)
		for _, text := range secrets {
			line = append(line, "--secret", text)
		}
		return run(t, s.command("kattest", line...))
	}
	both := []string{"password=" + file(t, password), "token=" + file(t, token)}
	unlock(stranger, spec, both...).want(t, 2, "not signed by an owner that the launch spec names")
	unlock(private, spec, both[0]).want(t, 2, `secret "token": missing`)
	unlock(private, spec, append(both, "more="+file(t, "x"))...).want(t, 2, `secret "more": the launch spec expects none`)
	if strings.Contains(g.out.String(), "s started") {
		t.Fatal("the workload runs without its secrets")
	}
	r, _ := g.attest(t, spec)
	r.want(t, 0) // evidence is to be had meanwhile

	unlock(private, spec, both...).want(t, 0, "SIMULATED VERIFIED", "taken: password token")
	g.waitFor(t, "serving\n")
	g.waitFor(t, fmt.Sprintf("file %x -r--r-----, variable %x", sha256.Sum256([]byte(password)), sha256.Sum256([]byte(token))))
	unlock(private, spec, both...).want(t, 5, "the guest has its secrets already")
	r, evidence := g.attest(t, spec)
	r.want(t, 0)
	kept, err := os.ReadFile(evidence)
	if err != nil || !strings.Contains(string(kept), `{"name":"secret","value":"password"}`) {
		t.Errorf("%v: %s", err, kept)
	}
	said := strings.Join(lines(t, filepath.Join(dir, launcher.ConsoleFile)), "\n") + g.out.String() + string(kept)
	for _, secret := range []string{password, token} {
		if strings.Contains(said, secret) {
			t.Error("a secret reached the host")
		}
	}
	g.stop(t).want(t, 7)
}

// A guest that waits can be stopped.
func TestStopWhileLocked(t *testing.T) {
	_, public := ownerKey(t)
	g := startUntil(t, summon(t, []string{"--owner", public, "--secret", "password"}, "exit", "0"), "serving")
	g.stop(t).want(t, 5, "the host asked to stop before the container was started")
}

// connect runs kattest connect until it listens, and returns its local address and what
// it says.
func connect(t *testing.T, g *guest, spec string) (cmd *exec.Cmd, address string, out, errors *buffer) {
	t.Helper()
	line := append([]string{"connect", g.state.Agent.String(), "-L", "0:8080"}, s.references(spec)...)
	cmd = s.command("kattest", line...)
	out, errors = &buffer{}, &buffer{}
	cmd.Stdout, cmd.Stderr = out, errors
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, rest, ok := strings.Cut(out.String(), "listening on "); ok {
			if address, _, ok := strings.Cut(rest, " for port 8080\n"); ok {
				return cmd, address, out, errors
			}
		}
	}
	t.Fatalf("it does not listen: %s%s", out, errors)
	return nil, "", nil, nil
}

// A workload that listens on loopback alone is reached through the tunnel, once the
// guest was judged; and through nothing else.
func TestConnect(t *testing.T) {
	dir := summon(t, append(output, "-p", "8080"), "serve", "127.0.0.1:8080")
	g := start(t, dir)
	g.waitFor(t, "serving\n")
	spec := dir + "/spec.json"
	cmd, address, out, warnings := connect(t, g, spec)
	if got := hello(t, address); got != "hello from the guest\n" {
		t.Errorf("the workload said %q", got)
	}
	f := g.state.Forwards[0]
	if conn, err := net.Dial("tcp", netip.AddrPortFrom(f.HostAddress, f.HostPort).String()); err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
			t.Errorf("beside the tunnel the workload said %q", line)
		}
		conn.Close()
	}

	// Nothing is listened on for a guest that does not hold.
	other := filepath.Join(t.TempDir(), "spec.json")
	text, err := os.ReadFile(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, []byte(strings.Replace(string(text), "127.0.0.1:8080", "127.0.0.1:8081", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	line := append([]string{"connect", g.state.Agent.String(), "-L", "0:8080"}, s.references(other)...)
	if r := run(t, s.command("kattest", line...)); r.exit != 5 || strings.Contains(r.stdout, "listening") {
		t.Errorf("exit %d: %s", r.exit, r.stdout)
	}

	// Judged anew when told to; started anew the guest has another key.
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second verdict", func() bool { return strings.Count(out.String(), "SIMULATED VERIFIED") == 2 })
	if got := hello(t, address); got != "hello from the guest\n" {
		t.Errorf("after SIGHUP the workload said %q", got)
	}
	g.stop(t)
	if conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address); err == nil {
		if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
			t.Errorf("without a guest somebody said %q", line)
		}
		conn.Close()
	}
	eventually(t, "a warning", func() bool { return strings.Contains(warnings.String(), "port 8080: ") })
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("exit %d after the guest has gone: %s", code, warnings)
	}
}
