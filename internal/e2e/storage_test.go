package e2e

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// says waits until the guest has printed text.
func (g *guest) says(t *testing.T, text string) {
	t.Helper()
	for limit := time.Now().Add(3 * time.Minute); !strings.Contains(g.out.String(), text); {
		select {
		case <-g.done:
			t.Fatalf("the guest ended, and did not say %q:\n%s", text, g.out)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(limit) {
			t.Fatalf("the guest does not say %q:\n%s", text, g.out)
		}
	}
}

// ask returns what the workload answers at its first port.
func (g *guest) ask(t *testing.T) string {
	t.Helper()
	f := g.state.Forwards[0]
	conn, err := net.Dial("tcp", netip.AddrPortFrom(f.HostAddress, f.HostPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(answer))
}

// spoil changes a byte in every block of the file that holds something.
func spoil(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4096)
	for at := int64(0); ; at += int64(len(b)) {
		if _, err := io.ReadFull(f, b); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if len(bytes.Trim(b, "\x00")) == 0 {
			continue
		}
		if _, err := f.WriteAt([]byte{^b[1000]}, at+1000); err != nil {
			t.Fatal(err)
		}
	}
}

func hasPlaintext(t *testing.T, name string) bool {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.TrimRight(data, "\x00")) == 0 {
		t.Fatalf("%s holds nothing at all", name)
	}
	return bytes.Contains(data, []byte("plaintext"))
}

// More than the guest has memory is written to the scratch disk, where the host
// finds nothing, and what the host changes there is not read.
func TestScratch(t *testing.T) {
	dir := summon(t, []string{"--scratch", "512m", "--memory", "256M", "-p", ":8080", "--console", "output"}, "store", ":8080", "/tmp/big", "200")
	g := start(t, dir)
	g.says(t, "stored")
	if got := g.ask(t); got != "intact" {
		t.Errorf("the file: %q", got)
	}
	disk := filepath.Join(dir, "run", "scratch.img")
	if hasPlaintext(t, disk) {
		t.Error("the scratch disk holds plaintext")
	}
	spoil(t, disk)
	if got := g.ask(t); !strings.Contains(got, "input/output error") {
		t.Errorf("the file after the host has changed it: %q", got)
	}
	g.stop(t)
	if _, err := os.Stat(disk); !os.IsNotExist(err) {
		t.Errorf("the scratch disk is still there: %v", err)
	}
}

// The twin: without a scratch disk there is no room.
func TestNoScratch(t *testing.T) {
	dir := summon(t, []string{"--memory", "256M", "-p", ":8080", "--console", "output"}, "store", ":8080", "/tmp/big", "200")
	boot(t, dir).want(t, 1, "no space left on device")
}

// A host that hands over another disk than the spec's, or none, is refused.
func TestScratchOfAnotherSize(t *testing.T) {
	for _, tt := range []struct {
		name    string
		scratch *pod.Scratch // what the host makes
		want    string
	}{
		{"larger", &pod.Scratch{Size: 66 << 20}, "another size than the spec says"},
		{"missing", nil, `no device is called "scratch"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := summon(t, []string{"--scratch", "65m"}, "exit", "0")
			v, err := vm.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			changed := v.Spec
			changed.Scratch = tt.scratch
			data, err := changed.Canonical()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, vm.SpecFile), data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := lie(t, dir, launcher.Claims{Spec: v.SpecBytes}); !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
