package hostile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/channel"
	"github.com/kraudcloud/kattest/launcher"
)

// monitorSocket is where the host has QEMU's monitor to itself, in the guest's folder.
const monitorSocket = "run/host.sock"

// runLies are of a host that waits until the guest runs.
func runLies() []lie {
	unread := func(name string) func(*host) error {
		return func(h *host) error {
			return h.between(name, func(net.Conn, net.Conn) error { select {} })
		}
	}
	return []lie{
		{"a monitor, and slots for devices", func(h *host) error {
			return h.add("-chardev", "socket,id=host,path="+monitorSocket+",server=on,wait=off", "-mon", "chardev=host,mode=control",
				"-device", "pcie-root-port,id=slot0,chassis=1,slot=1", "-device", "pcie-root-port,id=slot1,chassis=2,slot=2",
				"-device", "pcie-root-port,id=slot2,chassis=3,slot=3")
		}, ""},
		{"output that is not read", unread(port.StdoutPort), ""},
	}
}

// monitor is QEMU's, in the host's hands.
type monitor struct {
	conn  net.Conn
	lines *bufio.Scanner
}

func (g running) monitor(t *testing.T) *monitor {
	t.Helper()
	t.Chdir(g.dir) // a socket's path is short
	conn, err := net.Dial("unix", monitorSocket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &monitor{conn, bufio.NewScanner(conn)}
	if !m.lines.Scan() {
		t.Fatal("no greeting")
	}
	m.do(t, "qmp_capabilities", nil)
	return m
}

// do has QEMU do what it must be able to do.
func (m *monitor) do(t *testing.T, command string, arguments map[string]any) {
	t.Helper()
	line, err := json.Marshal(struct {
		Execute   string         `json:"execute"`
		Arguments map[string]any `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(m.conn, "%s\n", line); err != nil {
		t.Fatal(err)
	}
	for m.lines.Scan() {
		switch line := m.lines.Text(); {
		case strings.HasPrefix(line, `{"return":`):
			return
		case strings.HasPrefix(line, `{"error":`):
			t.Fatalf("%s: %s", command, line)
		}
	}
	t.Fatalf("%s: %v", command, m.lines.Err())
}

// tells is what the workload says on a connection through the agent's channel.
func (g running) tells(t *testing.T) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		conn, err := channel.Dial(t.Context(), g.agent, nil)
		if err != nil {
			t.Fatal(err)
		}
		tunnel, err := conn.Upgrade(t.Context(), port.TunnelPath+"8080", port.TunnelProtocol)
		if err != nil && time.Now().Before(deadline) { // it does not listen yet
			conn.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer tunnel.Close()
		said, err := io.ReadAll(tunnel)
		if err != nil {
			t.Fatal(err)
		}
		return string(said)
	}
}

// disks are the lines of /proc/partitions that are about the host's.
func disks(partitions string) (n int) {
	for line := range strings.Lines(partitions) {
		if fields := strings.Fields(line); len(fields) == 4 && strings.HasPrefix(fields[3], "vd") {
			n++
		}
	}
	return n
}

// TestHotPlug gives devices to a guest that runs: what was not there when it started
// is nothing to it, by whatever name. A disk that is there from the start is seen,
// and left alone.
func TestHotPlug(t *testing.T) {
	dir := summon(t, []string{"-p", "8080"}, "show", "/proc/partitions", ":8080")
	if n := disks(start(t, dir, "devices/a disk more").tells(t)); n != 3 {
		t.Errorf("with a disk more from the start, there are %d, want 3", n)
	}
	g := start(t, dir, "run/a monitor, and slots for devices")
	before := g.tells(t)
	if n := disks(before); n != 2 {
		t.Fatalf("%d disks at the start, want 2:\n%s", n, before)
	}
	m := g.monitor(t)
	for i, name := range []string{port.SpecDisk, port.RootDisk} {
		node := fmt.Sprintf("late%d", i)
		m.do(t, "blockdev-add", map[string]any{"driver": "null-co", "node-name": node, "size": 1 << 20, "read-zeroes": true})
		m.do(t, "device_add", map[string]any{
			"driver": "virtio-blk-pci", "id": node + "-disk", "drive": node, "serial": name, "bus": fmt.Sprintf("slot%d", i),
			"disable-legacy": "on", "iommu_platform": true,
		})
	}
	m.do(t, "device_add", map[string]any{"driver": "virtio-serial-pci", "id": "late", "bus": "slot2", "disable-legacy": "on", "iommu_platform": true})
	// QEMU has one port of a name, wherever it is.
	m.do(t, "chardev-add", map[string]any{"id": "late-port", "backend": map[string]any{"type": "null", "data": map[string]any{}}})
	m.do(t, "device_add", map[string]any{"driver": "virtserialport", "bus": "late.0", "chardev": "late-port", "name": "kattest.late"})
	m.do(t, "inject-nmi", nil)
	m.do(t, "system_powerdown", nil)
	m.do(t, "set_link", map[string]any{"name": "net0", "up": false})
	m.do(t, "set_link", map[string]any{"name": "net0", "up": true})
	run(t, kattest("attest", g.spec, g.agent)).want(t, 0, "SIMULATED VERIFIED")
	if after := g.tells(t); after != before {
		t.Errorf("the guest has\n%s, before\n%s", after, before)
	}
	g.stop(t, 7)
}

// stop ends the guest as its owner would, and wants that status of its container.
func (g running) stop(t *testing.T, want int) {
	t.Helper()
	if err := launcher.Stop(t.Context(), g.dir, 0); err != nil {
		t.Fatal(err)
	}
	if end := g.end(t); end.Error != "" || end.Exit != want {
		t.Errorf("it ended with status %d, %q; want %d", end.Exit, end.Error, want)
	}
}

func (g running) end(t *testing.T) launcher.End {
	t.Helper()
	status, err := launcher.ReadStatus(g.dir)
	if err != nil {
		t.Fatal(err)
	}
	if status.Phase != launcher.Exited {
		t.Fatalf("the guest is %v", status.Phase)
	}
	return status.End
}

// TestUnreadOutput: a host that does not read what the workload prints does not hold
// it up.
func TestUnreadOutput(t *testing.T) {
	t.Parallel()
	dir := summon(t, nil, "flood")
	for _, lie := range []string{"boot/as it is", "run/output that is not read"} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			r, _ := boot(t, dir, lie)
			r.want(t, 0)
			if read := strings.Contains(r.said, strings.Repeat("x", 1023)); read != (lie == "boot/as it is") {
				t.Errorf("the host has read output: %v", read)
			}
		})
	}
}

// printed waits until the workload has printed a text.
func (g running) printed(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		log, _ := os.ReadFile(filepath.Join(g.dir, launcher.OutputFile)) // not there yet
		if strings.Contains(string(log), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not print %q, but\n%.2000s", text, log)
		}
	}
}

// TestExhaustion: a workload that takes all there is of something, over and over,
// takes nothing of the agent's. The agent answers, and ends the guest when it is told.
func TestExhaustion(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{
		"memory":      "round 3: signal: killed",
		"processes":   "resource temporarily unavailable",
		"descriptors": "too many open files in system",
		"files":       "no space left on device",
		"output":      "round 3: ",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := summon(t, []string{"--memory", "512M", "--pids-limit", "100"}, "exhaust", what)
			g := start(t, dir, "boot/as it is")
			g.printed(t, want)
			run(t, kattest("attest", g.spec, g.agent)).want(t, 0, "SIMULATED VERIFIED")
			g.stop(t, 7)
		})
	}
}

// TestStrike: root in the container, with all capabilities that a spec can give, strikes
// at every process there is, and meets only its own.
func TestStrike(t *testing.T) {
	t.Parallel()
	dir := summon(t, []string{
		"--security-opt", "seccomp=unconfined",
		"--cap-add", "AUDIT_CONTROL,IPC_OWNER,LEASE,LINUX_IMMUTABLE,NET_ADMIN,SYS_NICE,SYS_RESOURCE,SYS_TIME,SYS_TTY_CONFIG",
	}, "strike")
	r, _ := boot(t, dir, "boot/as it is")
	r.want(t, 0, "its own alone was struck")
}
