package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What a container sees of itself is what docker would have given it.
func TestContainerSeesItself(t *testing.T) {
	dir := summon(t, append(output, "-e", "GREETING=hello there", "--user", "app", "--hostname", "vault", "--cap-drop", "ALL"), "self", "an argument", "")
	r := boot(t, dir)
	r.want(t, 0, "a line for standard error")
	var got map[string]any
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatalf("%v in %q", err, r.stdout)
	}
	want := map[string]any{
		"Args":     []any{"workload", "self", "an argument", ""},
		"Env":      []any{"PATH=/usr/bin:/bin", "HOSTNAME=vault", "FROM_IMAGE=yes", "GREETING=hello there", "HOME=/srv/home"},
		"Dir":      "/srv/work",
		"UID":      1000.0,
		"GID":      1001.0,
		"Groups":   []any{1001.0, 1002.0},
		"Hostname": "vault",
		"Caps":     "0000000000000000",
		"Writable": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the container sees (-want +got):\n%s", diff)
	}
}

func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options []string
		args    []string
		exit    int
	}{
		{"own", nil, []string{"exit", "42"}, 42},
		{"not found", []string{"--entrypoint", "nothing-here"}, nil, 127},
		{"not executable", []string{"--entrypoint", "/etc/text"}, nil, 126},
	} {
		t.Run(tt.name, func(t *testing.T) {
			boot(t, summon(t, tt.options, tt.args...)).want(t, tt.exit)
		})
	}
}

// Root in the container reaches nothing of the agent's.
func TestContainerIsFenced(t *testing.T) {
	boot(t, summon(t, output, "reach")).want(t, 0, "nothing within reach")
}

// The workload is number 1 of a process namespace of its own.
func TestOrphansComeToTheWorkload(t *testing.T) {
	boot(t, summon(t, output, "orphan")).want(t, 0, "reaped the orphan")
}

// A workload that does not stop is killed after a while.
func TestDeafWorkloadIsKilled(t *testing.T) {
	start(t, summon(t, nil, "deaf")).stop(t).want(t, 137, "did not stop")
}

// Without console=output the host gets no byte, and the workload does not stall.
func TestOutputIsDrained(t *testing.T) {
	r := boot(t, summon(t, nil, "flood"))
	r.want(t, 0)
	if r.stdout != "" {
		t.Errorf("%d bytes of output reached the host", len(r.stdout))
	}
}

// A guest serves, answers a challenge, and stops when asked to.
func TestServeAttestStop(t *testing.T) {
	dir := summon(t, append(output, "-p", "8080"), "serve", ":8080")
	g := start(t, dir)
	f := g.state.Forwards[0]
	if got := hello(t, fmt.Sprintf("%s:%d", f.HostAddress, f.HostPort)); got != "hello from the guest\n" {
		t.Errorf("the workload said %q", got)
	}
	r, _ := g.attest(t, dir+"/spec.json")
	r.want(t, 0, "SIMULATED")
	g.stop(t).want(t, 7, "stopped by SIGTERM")
}

func hello(t *testing.T, address string) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		// QEMU accepts before the guest listens.
		if err == nil || time.Now().After(deadline) {
			return line
		}
	}
}

// Bounds are the spec's, or docker's where it says nothing.
func TestContainerIsBounded(t *testing.T) {
	bounds := func(options ...string) map[string]any {
		t.Helper()
		r := boot(t, summon(t, append(options, output...), "bounds"))
		r.want(t, 0)
		var got map[string]any
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
			t.Fatalf("%v in %q", err, r.stdout)
		}
		return got
	}
	plain := bounds()
	memory := plain["Cgroup"].(map[string]any)["memory.max"]
	if n, err := strconv.ParseUint(memory.(string), 10, 64); err != nil || n < 1<<30 || n > 2<<30 {
		t.Errorf("memory.max is %v of a guest with 2 GiB", memory)
	}
	want := map[string]any{
		"Seccomp": "2", "NoNewPrivs": "0", "Groups": []any{0.0}, "Files": 524288.0,
		"Cgroup": map[string]any{"pids.max": "16384", "memory.max": memory, "cpu.max": "max 100000"},
		"Hosts":  "10.0.2.15\tcradle", "Resolv": "nameserver 10.0.2.3",
		"Root": true, "Tmp": true, "Unshare": "operation not permitted",
	}
	if diff := cmp.Diff(want, plain); diff != "" {
		t.Errorf("by default (-want +got):\n%s", diff)
	}
	want = map[string]any{
		"Seccomp": "0", "NoNewPrivs": "1", "Groups": []any{0.0, 7.0, 1002.0}, "Files": 128.0,
		"Cgroup": map[string]any{"pids.max": "100", "memory.max": "67108864", "cpu.max": "50000 100000"},
		"Hosts":  "192.0.2.7\tdb", "Resolv": "options ndots:2",
		"Root": false, "Tmp": true, "Unshare": "operation not permitted", // for want of CAP_SYS_ADMIN
	}
	got := bounds("--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", "--group-add", "7,extra",
		"--ulimit", "nofile=64:128", "--pids-limit", "100", "--container-memory", "64m", "--cpus", "0.5", "--add-host", "db:192.0.2.7",
		"--dns-search", "example.org", "--dns-option", "ndots:2", "--init", "--read-only", "--mount", "type=tmpfs,target=/tmp")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("as asked (-want +got):\n%s", diff)
	}
}
