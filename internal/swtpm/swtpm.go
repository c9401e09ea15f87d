// Package swtpm starts software TPMs for tests: swtpm, a process of its own.
package swtpm

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Unix starts a TPM that has been started up, and returns the path of its socket.
func Unix(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "swtpm") // tb.TempDir's names are longer than sockets may have
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) }) // the TPM may still write there
	socket := filepath.Join(dir, "tpm")
	start(tb, dir, "--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl")
	wait(tb, "unix", socket)
	return socket
}

// TCP starts a TPM that has been started up, and returns its port on the loopback
// address; its control channel is at the next one.
func TCP(tb testing.TB) int {
	tb.Helper()
	port := freePorts(tb)
	start(tb, tb.TempDir(),
		"--server", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port),
		"--ctrl", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port+1))
	wait(tb, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1)))
	return port
}

func start(tb testing.TB, dir string, args ...string) {
	tb.Helper()
	path, err := exec.LookPath("swtpm")
	if err != nil {
		tb.Skip("swtpm is not installed (scripts/setup installs it)")
	}
	cmd := exec.Command(path, append([]string{"socket", "--tpm2", "--tpmstate", "dir=" + dir, "--flags", "not-need-init,startup-clear"}, args...)...)
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended with its connection
		_ = cmd.Wait()
	})
}

// wait waits until something answers at an address.
func wait(tb testing.TB, network, address string) {
	tb.Helper()
	for range 200 {
		if network == "unix" { // a connection that is closed would end it
			if _, err := os.Stat(address); err == nil {
				return
			}
		} else if c, err := net.Dial(network, address); err == nil {
			c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	tb.Fatalf("swtpm does not answer at %s", address)
}

// freePorts returns a port that is free with the one above it.
func freePorts(tb testing.TB) int {
	tb.Helper()
	for range 50 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1)))
		first.Close()
		if err == nil {
			second.Close()
			return port
		}
	}
	tb.Fatal("no two free ports in a row")
	return 0
}
