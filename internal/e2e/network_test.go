package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// With an IPv6 address on QEMU's network the guest reaches the host's loopback
// by IPv6; its twin without one does not.
func TestUserNetworkIPv6(t *testing.T) {
	listener, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6 loopback: %v", err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, "hello from the host")
			conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"dial", "[fec0::2]:" + port}
	boot(t, summon(t, []string{"--console", "output", "--ip", "fec0::15/64"}, args...)).want(t, 0, "hello from the host")
	boot(t, summon(t, output, args...)).want(t, 1, "network is unreachable")
}

// network is a network and mount namespace with a bridge br0, which
// /etc/qemu/bridge.conf allows, and with a name server.
type network struct{ pid string }

func newNetwork(t *testing.T) network {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("root alone makes a bridge in a namespace")
	}
	workload := filepath.Join(filepath.Dir(s.bin), "workload")
	cmd := exec.Command("unshare", "--net", "--mount", "sh", "-ec", `
mount -t tmpfs etc "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" etc /etc
mkdir -p /etc/qemu
echo allow br0 >/etc/qemu/bridge.conf
ip link set lo up
ip link add br0 type bridge
ip link add br1 type bridge
ip address add 192.0.2.1/24 dev br0
ip address add fd00::1/64 dev br0 nodad
ip link set br0 up
echo $$
exec "$2" dns 192.0.2.1:53`, "sh", t.TempDir(), workload)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	pid, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("making a bridge: %v", err)
	}
	return network{strings.TrimSpace(pid)}
}

// enter makes a command of this suite run in the namespace.
func (n network) enter(cmd *exec.Cmd) *exec.Cmd {
	in := exec.Command("nsenter", append([]string{"-t", n.pid, "-n", "-m"}, cmd.Args...)...)
	in.Dir, in.Env = cmd.Dir, cmd.Env
	return in
}

// A guest on a bridge has the spec's addresses of both families, is attested at
// its own address, and asks the spec's name server.
func TestBridge(t *testing.T) {
	n := newNetwork(t)
	on := func(bridge string, more ...string) []string {
		return append([]string{"--console", "output", "--network", "bridge=" + bridge, "--ip", "192.0.2.2/24", "--ip", "fd00::2/64", "--dns", "192.0.2.1"}, more...)
	}
	run1 := func(dir string) *exec.Cmd {
		return n.enter(s.command("cradle-snp", "run", "--platform", "sim", "--psp-state", s.psp, dir))
	}
	run(t, run1(summon(t, on("br0"), "look", "db.example"))).want(t, 0, "attestation endpoint: 192.0.2.2:1", "addresses: [192.0.2.77]")
	run(t, run1(summon(t, on("br1"), "exit", "0"))).want(t, 1, "no tap device on the bridge", "access denied by acl file", "hint: make the bridge")
	run(t, run1(summon(t, on("absent"), "exit", "0"))).want(t, 1, "no tap device on the bridge")

	dir := summon(t, on("br0", "--expose", "8080"), "serve", ":8080")
	g := startCommand(t, dir, "started", run1(dir))
	g.says(t, "\nserving\n")
	workload := filepath.Join(filepath.Dir(s.bin), "workload")
	for _, address := range []string{"192.0.2.2:8080", "[fd00::2]:8080"} {
		run(t, n.enter(exec.Command(workload, "dial", address))).want(t, 0, "hello from the guest")
	}
	line := append([]string{"attest"}, s.references(dir+"/spec.json")...)
	run(t, n.enter(s.command("kattest", append(line, "[fd00::2]:1")...))).want(t, 0)
	run(t, n.enter(s.command("kattest", append(line, "192.0.2.3:1")...))).want(t, 4)
	g.stop(t).want(t, 7)
}
