package platform

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-configfs-tsm/report"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/simpsp"
)

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		name      string
		status    uint64
		err       error
		kernelSNP bool
		want      Kind
		wantErr   string
	}{
		{name: "SNP", status: 7, kernelSNP: true, want: SNP},
		{name: "no SEV", status: 0, want: Simulated},
		{name: "SEV-ES alone", status: 3, want: Simulated},
		{name: "no such register", err: unix.EIO, want: Simulated},
		{name: "the processor says SNP, the kernel does not", status: 7, wantErr: "says SNP true, the kernel false"},
		{name: "the kernel says SNP, the processor does not", status: 0, kernelSNP: true, wantErr: "says SNP false, the kernel true"},
		{name: "the kernel says SNP, the register cannot be read", err: unix.EIO, kernelSNP: true, wantErr: "says SNP false, the kernel true"},
		{name: "no MSR device", err: os.ErrNotExist, wantErr: "reading SEV_STATUS"},
		{name: "cut off", err: io.ErrUnexpectedEOF, wantErr: "reading SEV_STATUS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := choose(tt.status, tt.err, tt.kernelSNP)
			if got != tt.want || !says(err, tt.wantErr) {
				t.Errorf("got %v, %v; want %v, %q", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func says(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), want)
}

func TestReadMSR(t *testing.T) {
	name := t.TempDir() + "/msr"
	if err := os.WriteFile(name, []byte{9, 9, 1, 2, 3, 4, 5, 6, 7, 8}, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readMSR(name, 2); err != nil || got != 0x0807060504030201 {
		t.Errorf("got %#x, %v", got, err)
	}
	if got, err := readMSR(name, 3); got != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("7 bytes: got %#x, %v", got, err)
	}
	if got, err := readMSR(name+"s", 0); got != 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no device: got %#x, %v", got, err)
	}
}

// On SNP nothing but the kernel's provider will do; the host's is not opened.
func TestOpenSNPWithoutReports(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/config/tsm/report"); err == nil {
		t.Skip("this machine is a confidential guest: its kernel offers reports")
	}
	p, err := Open(SNP, func() (io.ReadWriter, error) {
		t.Error("the simulated PSP is asked for")
		return nil, io.EOF
	})
	if p != nil || !says(err, "the processor says SNP, and the kernel offers no reports") {
		t.Errorf("got %v, %v", p, err)
	}
	if p, err := Open(0, nil); p != nil || err == nil {
		t.Errorf("kind 0: got %v, %v", p, err)
	}
}

var hostData = [32]byte{1, 2, 3}

// loadPSP makes one for all tests: its keys take a while.
var loadPSP = sync.OnceValues(func() (*simpsp.PSP, error) {
	dir, err := os.MkdirTemp("", "platform-test-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return simpsp.Load(dir + "/psp")
})

// simulated is a platform with a simulated PSP behind alter, which changes what
// the PSP says.
func simulated(t *testing.T, policy uint64, alter func([]byte) []byte) *Platform {
	t.Helper()
	psp, err := loadPSP()
	if err != nil {
		t.Fatal(err)
	}
	guest, host := net.Pipe()
	t.Cleanup(func() { guest.Close() })
	go func() {
		_ = psp.Launch([48]byte{4}, hostData, policy).Serve(host) // ends with the pipe
	}()
	p, err := Open(Simulated, func() (io.ReadWriter, error) {
		if alter != nil {
			return &altered{Conn: guest, alter: alter}, nil
		}
		return guest, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const policy = 0x30000

func TestReport(t *testing.T) {
	p := simulated(t, policy, nil)
	for i := range byte(3) {
		reportData := [64]byte{i, 63: 9}
		r, err := p.Report(reportData)
		if err != nil {
			t.Fatal(err)
		}
		if r.HostData() != hostData || [64]byte(r.Raw[0x50:0x90]) != reportData || len(r.Certificates) == 0 {
			t.Errorf("HOST_DATA %x, REPORT_DATA %x, %d bytes of certificates", r.HostData(), r.Raw[0x50:0x90], len(r.Certificates))
		}
	}
}

// altered changes the PSP's answers.
type altered struct {
	net.Conn
	alter func([]byte) []byte
	rest  bytes.Buffer
}

func (a *altered) Read(b []byte) (int, error) {
	if a.rest.Len() == 0 {
		var head [4]byte
		if _, err := io.ReadFull(a.Conn, head[:]); err != nil {
			return 0, err
		}
		answer := append(head[:], make([]byte, binary.LittleEndian.Uint32(head[:]))...)
		if _, err := io.ReadFull(a.Conn, answer[4:]); err != nil {
			return 0, err
		}
		a.rest.Write(a.alter(answer))
	}
	return a.rest.Read(b)
}

func TestReportRefuses(t *testing.T) {
	const report = 0x24 // of the framed answer
	set := func(offset int, value byte) func([]byte) []byte {
		return func(b []byte) []byte { b[offset] = value; return b }
	}
	for _, tt := range []struct {
		name   string
		policy uint64
		alter  func([]byte) []byte
		want   string
	}{
		{"version 1", policy, set(report, 1), "[0x00:0x04]: VERSION 1"},
		{"version 6", policy, set(report, 6), "[0x00:0x04]: VERSION 6"},
		{"debug", policy | policyDebug, nil, "[0x08:0x10]: POLICY 0xb0000"},
		{"VMPL", policy, set(report+0x30, 1), "[0x30:0x34]: VMPL 1, want 0"},
		{"another request's", policy, set(report+0x50, 0xaa), "[0x50:0x90]: REPORT_DATA aa"},
		{"status", policy, set(4, 0x16), "STATUS 0x16"},
		{"length", policy, set(3, 1), "length"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := simulated(t, tt.policy, tt.alter).Report([64]byte{})
			if !says(err, tt.want) || r.Raw != [port.ReportSize]byte{} || r.Certificates != nil {
				t.Errorf("got %x…, %v; want %q", r.Raw[:4], err, tt.want)
			}
		})
	}
}

// After an answer that breaks the rules the port is not used again.
func TestBrokenPortStaysBroken(t *testing.T) {
	n := 0
	p := simulated(t, policy, func(b []byte) []byte {
		if n++; n == 1 {
			b[4] = 1
		}
		return b
	})
	for range 3 {
		if _, err := p.Report([64]byte{}); !says(err, "STATUS 0x1") {
			t.Errorf("got error %v", err)
		}
	}
	if n != 1 {
		t.Errorf("the PSP was asked %d times", n)
	}
}

// A write that another made is seen by its generation, as with the kernel's.
func TestGeneration(t *testing.T) {
	client := simulated(t, policy, nil).client
	r, err := report.Create(client, &report.Request{InBlob: make([]byte, 64), Privilege: &report.Privilege{Level: 0}})
	if err != nil {
		t.Fatal(err)
	}
	rsp, err := r.Get()
	if err != nil || rsp.Provider != simulatedProvider {
		t.Fatalf("got %v, %v", rsp, err)
	}
	entries := client.(*SimulatedClient).entries
	for name := range entries {
		if err := client.WriteFile("/sys/kernel/config/tsm/report/"+name+"/inblob", make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
	}
	var generation *report.GenerationErr
	if _, err := r.ReadOption("outblob"); !errors.As(err, &generation) || generation.Got != 3 || generation.Want != 2 {
		t.Errorf("got error %v, want another generation", err)
	}
	if err := r.Destroy(); err != nil || len(entries) != 0 {
		t.Errorf("destroying: %v, %d entries left", err, len(entries))
	}
}

func TestSimulatedClientRefuses(t *testing.T) {
	client := NewSimulatedClient(nil)
	const root = "/sys/kernel/config/tsm/report"
	entry, err := client.MkdirTemp(root, "entry")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) error { _, err := client.ReadFile(name); return err }
	mkdir := func(dir string) error { _, err := client.MkdirTemp(dir, "entry"); return err }
	for name, err := range map[string]error{
		"a short inblob":     client.WriteFile(entry+"/inblob", make([]byte, 63)),
		"a long inblob":      client.WriteFile(entry+"/inblob", make([]byte, 65)),
		"VMPL 4":             client.WriteFile(entry+"/privlevel", []byte("4")),
		"a VMPL in words":    client.WriteFile(entry+"/privlevel", []byte("one")),
		"read-only":          client.WriteFile(entry+"/outblob", nil),
		"no inblob":          read(entry + "/outblob"),
		"unknown attribute":  read(entry + "/manifestblob"),
		"write-only":         read(entry + "/inblob"),
		"unknown entry":      read(root + "/other/generation"),
		"an entry":           read(entry),
		"another file":       read("/etc/passwd"),
		"another subsystem":  mkdir("/sys/kernel/config/tsm/rtmr"),
		"within an entry":    mkdir(entry),
		"removing an other":  client.RemoveAll(root + "/other"),
		"removing all":       client.RemoveAll(root),
		"removing a file":    client.RemoveAll(entry + "/inblob"),
		"listing":            func() error { _, err := client.ReadDir(root); return err }(),
		"climbing out of it": read(root + "/../../etc/passwd"),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for i := 1; i < maxEntries; i++ {
		if err := mkdir(root); err != nil {
			t.Fatal(fmt.Errorf("entry %d: %w", i, err))
		}
	}
	if err := mkdir(root); !says(err, "more than 16") {
		t.Errorf("entry %d: got error %v", maxEntries, err)
	}
}
