package launcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
)

func TestFolder(t *testing.T) {
	// Deeper than a socket's path may be long.
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.MkdirAll(filepath.Join(dir, runDir, "stale"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFolder(dir); !errors.Is(err, ErrRunning) {
		t.Errorf("a second launcher: got error %v", err)
	}
	spec := []byte("spec")
	hashes := measure.KernelHashes{Kernel: [32]byte{1}}
	if err := f.fill(&launch{machine: sample(Sim), spec: spec, hashes: hashes}); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(filepath.Join(dir, specDisk))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := port.DecodeSpecDisk(bytes.NewReader(disk), 100); err != nil || !bytes.Equal(got, spec) {
		t.Errorf("the spec disk holds %q, %v", got, err)
	}
	table, err := os.ReadFile(filepath.Join(dir, hashTable))
	if want := hashes.Table(); err != nil || !bytes.Equal(table, want[:]) {
		t.Errorf("the hash table is %x, %v", table, err)
	}
	if info, err := os.Stat(filepath.Join(dir, runDir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", runDir, info.Mode(), err)
	}

	// A socket that QEMU makes by a name relative to its working folder.
	t.Chdir(dir)
	l, err := net.Listen("unix", qmpSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Chdir("/")
	conn, err := f.dial(qmpSocket)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()

	want := State{
		MediaType: StateMediaType, PID: 7, Platform: "sim", Accel: "tcg",
		Agent:    netip.MustParseAddrPort("127.0.0.1:4001"),
		Forwards: []vm.Forward{{HostAddress: netip.MustParseAddr("127.0.0.1"), HostPort: 5000, GuestPort: 80, Protocol: "tcp"}},
	}
	if err := f.writeState(want); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, StateFile))
	if err != nil {
		t.Fatal(err)
	}
	var got State
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{})); diff != "" {
		t.Errorf("run.json (-want +got):\n%s", diff)
	}

	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != ConsoleFile {
		t.Errorf("left behind: %v, %v", left, err)
	}
	again, err := openFolder(dir)
	if err != nil {
		t.Fatalf("the lock outlives its launcher: %v", err)
	}
	if err := again.close(); err != nil {
		t.Error(err)
	}
}

func TestWithPorts(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	n := Network{
		Agent: netip.AddrPortFrom(local, 0),
		Forwards: []vm.Forward{
			{HostAddress: local, GuestPort: 80, Protocol: "tcp"},
			{HostAddress: local, GuestPort: 53, Protocol: "udp"},
			{HostAddress: local, HostPort: 4444, GuestPort: 90, Protocol: "tcp"},
		},
	}
	got, err := n.withPorts()
	if err != nil {
		t.Fatal(err)
	}
	if got.Agent.Addr() != local || got.Agent.Port() == 0 {
		t.Errorf("agent: %v", got.Agent)
	}
	for i, f := range got.Forwards {
		if f.HostPort == 0 || f.GuestPort != n.Forwards[i].GuestPort {
			t.Errorf("forward %d: %+v", i, f)
		}
	}
	if got.Forwards[2].HostPort != 4444 || n.Forwards[0].HostPort != 0 {
		t.Errorf("a port that is given changed, or the folder's own configuration: %+v, %+v", got.Forwards[2], n.Forwards[0])
	}
}
