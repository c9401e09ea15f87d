package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// composeFile writes a compose file of the workload's services.
func composeFile(t *testing.T, services string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "compose.yaml")
	text := strings.ReplaceAll("name: shop\nservices:\n"+services, "IMAGE", s.layout)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run(t, s.command("cradle-snp", "down", file)).want(t, 0) })
	return file
}

func upArgs(more ...string) []string {
	return append([]string{"up", "--platform", "sim", "--psp-state", s.psp, "--stack", s.stack}, more...)
}

// freePort is one that nothing of this machine's listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestUp: services come up in their order, answer at their ports, are left alone
// while nothing changes, and go.
func TestUp(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	services := `
  web:
    image: IMAGE
    command: ["serve", ":8080"]
    ports: ["` + address + `:8080"]
    environment: {COLOUR: blue}
    mem_limit: 512m
    x-cradle-snp: {console: output}
    depends_on: {init: {condition: service_completed_successfully}}
  init:
    image: IMAGE
    command: ["self"]
    x-cradle-snp: {console: output}
`
	file := composeFile(t, services)
	up := cradle(t, upArgs("-d", file)...)
	up.want(t, 0, "shop-web: started as ", "shop-web: "+address+"->8080/tcp")
	if strings.Index(up.stderr, "shop-init: started") > strings.Index(up.stderr, "shop-web: summoning") {
		t.Errorf("the order:\n%s", up.stderr)
	}
	if got := hello(t, address); got != "hello from the guest\n" {
		t.Errorf("the service said %q", got)
	}
	cradle(t, "logs", "shop-init").want(t, 0, `"Hostname":"init"`)
	cradle(t, "inspect", "-f", "{{.MemoryMiB}}", "shop-web").want(t, 0, "512")
	cradle(t, "ps").want(t, 0, address+"->8080/tcp", "shop-web")

	before := stateOf(t, filepath.Join(filepath.Dir(file), ".cradle-snp", "shop-web"))
	again := cradle(t, upArgs("-d", file)...)
	again.want(t, 0, "shop-web: running")
	if after := stateOf(t, filepath.Join(filepath.Dir(file), ".cradle-snp", "shop-web")); after.PID != before.PID {
		t.Error("a service that is as it was is made anew")
	}
	changed := strings.ReplaceAll("name: shop\nservices:\n"+strings.Replace(services, "blue", "red", 1), "IMAGE", s.layout)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	cradle(t, upArgs("-d", file)...).want(t, 0, "shop-web: stopped", "shop-web: summoning", "shop-web: started as ")

	cradle(t, "down", file).want(t, 0, "shop-web: stopped")
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), ".cradle-snp")); err == nil {
		t.Error("down left the folder")
	}
	if r := cradle(t, "ps", "-a"); strings.Contains(r.stdout, "shop-") {
		t.Errorf("left:\n%s", r.stdout)
	}
}

// TestUpReach: services reach each other by published ports at the gateway of
// their networks, and not by their names, nor where nothing is published.
func TestUpReach(t *testing.T) {
	port := freePort(t)
	text := `
  web: {image: IMAGE, command: ["serve", ":8080"], ports: ["127.0.0.1:%d:8080"]}
  near: {image: IMAGE, command: ["fetch", "10.0.2.2:%d"], depends_on: [web], x-cradle-snp: {console: output}}
  closed: {image: IMAGE, command: ["fetch", "10.0.2.2:%d"], depends_on: [web], x-cradle-snp: {console: output}}
  hosts: {image: IMAGE, command: ["fetch", "db:%d"], extra_hosts: ["db:10.0.2.2"], depends_on: [web], x-cradle-snp: {console: output}}
  named: {image: IMAGE, command: ["fetch", "web:8080"], depends_on: [web], x-cradle-snp: {console: output}}
`
	file := composeFile(t, fmt.Sprintf(text, port, port, freePort(t), port))
	cradle(t, upArgs("-d", file)...).want(t, 0)
	for guest, status := range map[string]string{"shop-near": "exited 0", "shop-hosts": "exited 0", "shop-closed": "exited 1", "shop-named": "exited 1"} {
		eventually(t, guest, func() bool {
			r := cradle(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", guest)
			return strings.TrimSpace(r.stdout) == status
		})
	}
	cradle(t, "logs", "shop-near").want(t, 0, "hello from the guest")
	cradle(t, "logs", "shop-closed").want(t, 0, "refused")
}

// TestUpFails: a service whose dependency does not end well is not started, and
// what was started is stopped.
func TestUpFails(t *testing.T) {
	file := composeFile(t, `
  other: {image: IMAGE, command: ["serve", ":8080"]}
  init: {image: IMAGE, command: ["exit", "3"], depends_on: [other]}
  web: {image: IMAGE, command: ["serve", ":8080"], depends_on: {init: {condition: service_completed_successfully}}}
`)
	r := cradle(t, upArgs(file)...)
	r.want(t, 1, "services.web: depends_on.init: it did not end well: exited, exit status 3", "shop-other: stopped")
	if strings.Contains(r.stderr, "shop-web: started") {
		t.Errorf("it was started:\n%s", r.stderr)
	}
	if r := cradle(t, "ps"); strings.Contains(r.stdout, "shop-") {
		t.Errorf("still running:\n%s", r.stdout)
	}
}

// TestUpForeground: the output of all services, under their names, until Ctrl-C. One
// that failed, restarts and all, is told of, and makes it exit with 1.
func TestUpForeground(t *testing.T) {
	file := composeFile(t, `
  web: {image: IMAGE, command: ["serve", ":8080"], x-cradle-snp: {console: output}}
  self: {image: IMAGE, command: ["self"], x-cradle-snp: {console: output}}
  poor: {image: IMAGE, command: ["exit", "3"], restart: "on-failure:1"}
`)
	cmd := s.command("cradle-snp", upArgs(file)...)
	var out buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for !strings.Contains(out.String(), "shop-web  | serving\n") || !strings.Contains(out.String(), "shop-self: ended with 0") ||
		!strings.Contains(out.String(), "shop-poor: its container ended with 3") {
		select {
		case err := <-done:
			t.Fatalf("up ended: %v\n%s", err, out.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	if !bytes.Contains([]byte(out.String()), []byte(`shop-self | {"Args"`)) {
		t.Errorf("no output of the other service:\n%s", out.String())
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-done
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1, as a service failed", code)
	}
	for _, want := range []string{"shop-web: stopped", "error: services.poor: its container ended with 3\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

// TestUpHealth: a service waits for another one's health, which the host is told; where
// that is bad, it is not started.
func TestUpHealth(t *testing.T) {
	file := composeFile(t, `
  good:
    image: IMAGE
    command: ["serve", ":8080"]
    healthcheck: {test: [CMD, workload, dial, "127.0.0.1:8080"], interval: 100ms, timeout: 20s}
  poor:
    image: IMAGE
    command: ["serve", ":8080"]
    healthcheck: {test: [CMD, workload, dial, "127.0.0.1:8081"], interval: 100ms, timeout: 20s, retries: 1}
  content: {image: IMAGE, command: ["serve", ":8080"], depends_on: {good: {condition: service_healthy}}}
  waiting: {image: IMAGE, command: ["serve", ":8080"], depends_on: {content: {condition: service_started}, poor: {condition: service_healthy}}}
`)
	r := cradle(t, upArgs("-d", file)...)
	r.want(t, 1, "shop-content: started", "services.waiting: depends_on.poor: it is unhealthy")
	if strings.Contains(r.stderr, "shop-waiting: started") {
		t.Errorf("it was started:\n%s", r.stderr)
	}
	cradle(t, "inspect", "-f", "{{.State.Health.Status}}", "shop-good").want(t, 0, "healthy\n")
	cradle(t, "inspect", "-f", "{{.State.Health}}", "shop-content").want(t, 0, "<nil>")
	cradle(t, "ps").want(t, 0, "seconds (healthy)", "seconds (unhealthy)")
}
