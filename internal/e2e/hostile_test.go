package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/fetch"
)

// hostQEMU is an environment in which QEMU gets arguments of the host's besides
// those that the launcher gives: none of them changes what is measured.
func hostQEMU(t *testing.T, args ...string) (env string) {
	t.Helper()
	qemu, err := exec.LookPath(launcher.QEMU)
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' \"$@\" '%s'\n", qemu, strings.Join(args, "' '"))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, launcher.QEMU), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return "PATH=" + dir + ":" + os.Getenv("PATH")
}

// hostileTable are the arguments that hand testdata/hostile.aml to the guest, and
// the file that takes what its bytecode tells the host.
func hostileTable(t *testing.T) (args []string, told string) {
	t.Helper()
	table, err := filepath.Abs("testdata/hostile.aml")
	if err != nil {
		t.Fatal(err)
	}
	told = filepath.Join(t.TempDir(), "told")
	return []string{"-acpitable", "file=" + table, "-debugcon", "file:" + told}, told
}

func lines(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// The host's bytecode is run, asks devices, and finds no memory. The guest goes
// on, and verifies: no measurement covers ACPI tables.
func TestKernelRefusesHostileTable(t *testing.T) {
	args, told := hostileTable(t)
	dir := summon(t, nil, "serve", ":8080")
	g := start(t, dir, hostQEMU(t, args...))
	r, _ := g.attest(t, dir+"/spec.json")
	r.want(t, 0)
	want := []string{
		"low reads 0x50000",
		"high reads 0x10000000",
		"table reads 0x4",
		"device reads 0xFEC00000",
		"device found 0x170020",
	}
	if diff := cmp.Diff(want, lines(t, told)); diff != "" {
		t.Errorf("what the bytecode told the host (-want +got):\n%s", diff)
	}
	console := strings.Join(lines(t, filepath.Join(dir, launcher.ConsoleFile)), "\n")
	for _, text := range []string{
		"bytecode refused: 0x50000 is memory",
		"bytecode refused: 0x10000000 is memory",
		"bytecode refused: a table is memory",
	} {
		if !strings.Contains(console, text) {
			t.Errorf("the kernel does not say %q", text)
		}
	}
}

// The twin: Debian's kernel of the same series lets the same bytecode read and
// write its memory, and the header of a table.
func TestDebiansKernelObeysHostileTable(t *testing.T) {
	args, told := hostileTable(t)
	console := rootless(t, debiansKernel(t), args...)
	want := []string{
		"low reads 0x50000",
		"low found something",
		"low wrote 0x21444142",
		"high reads 0x10000000",
		"high found something",
		"high wrote 0x21444142",
		"table reads 0x4",
		"table found 0x234",
		"table wrote 0x7FFFFFFF",
		"device reads 0xFEC00000",
		"device found 0x170020",
	}
	got := lines(t, told)
	for i, line := range got {
		// Where the kernel puts what is random.
		if what, _, ok := strings.Cut(line, " found "); ok && (what == "low" || what == "high") {
			got[i] = what + " found something"
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the bytecode told the host (-want +got):\n%s\n%s", diff, console)
	}
}

// rootless boots a kernel alone, with arguments of the host's, and returns what it
// says until it ends for want of a root file system.
func rootless(t *testing.T, kernel string, args ...string) (console string) {
	t.Helper()
	qemu := exec.Command(launcher.QEMU, append([]string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg",
		"-machine", "q35", "-cpu", "EPYC-v4", "-m", "1G", "-kernel", kernel,
		"-append", "console=ttyS0 panic=-1", "-serial", "stdio",
	}, args...)...)
	out, err := qemu.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// fadt is a table of fixed hardware whose event registers, GPE block and reset
// register are in memory, at 0x50100, 0x50000 and 0x50200. Source: ACPI 6.5,
// table 5.9. What is not set is 0.
//
//	offset  size  field                 value
//	0x00    4     Signature             "FACP"
//	0x04    4     Length                268
//	0x08    1     FADT Major Version    5
//	0x09    1     Checksum              all bytes add up to 0
//	0x0a    6     OEMID                 "HOST"
//	0x2e    2     SCI_INT               9
//	0x40    4     PM1a_CNT_BLK          0x604, as QEMU has it
//	0x4c    4     PM_TMR_BLK            0x608, as QEMU has it
//	0x58    1     PM1_EVT_LEN           4
//	0x59    1     PM1_CNT_LEN           2
//	0x5b    1     PM_TMR_LEN            4
//	0x5c    1     GPE0_BLK_LEN          16
//	0x70    4     Flags                 bit 10, RESET_REG_SUP
//	0x74    12    RESET_REG             8 bits of memory at 0x50200
//	0x94    12    X_PM1a_EVT_BLK        32 bits of memory at 0x50100
//	0xdc    12    X_GPE0_BLK            128 bits of memory at 0x50000
func fadt() []byte {
	b := make([]byte, 268)
	le := binary.LittleEndian
	register := func(offset int, bits byte, address uint64) {
		b[offset] = 0 // SystemMemory
		b[offset+1] = bits
		le.PutUint64(b[offset+4:], address)
	}
	copy(b, "FACP")
	le.PutUint32(b[0x04:], uint32(len(b)))
	b[0x08] = 5
	copy(b[0x0a:], "HOST")
	le.PutUint16(b[0x2e:], 9)
	le.PutUint32(b[0x40:], 0x604)
	le.PutUint32(b[0x4c:], 0x608)
	b[0x58], b[0x59], b[0x5b], b[0x5c] = 4, 2, 4, 16
	le.PutUint32(b[0x70:], 1<<10)
	register(0x74, 8, 0x50200)
	register(0x94, 32, 0x50100)
	register(0xdc, 128, 0x50000)
	sum := byte(0)
	for _, v := range b {
		sum += v
	}
	b[0x09] = -sum
	return b
}

// Registers that a table puts in memory are refused, and the kernel goes on
// without them. Its twin is Debian's kernel, which takes them.
func TestKernelRefusesRegistersInMemory(t *testing.T) {
	table := filepath.Join(t.TempDir(), "fadt.aml")
	if err := os.WriteFile(table, fadt(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		name, kernel string
		want, never  []string
	}{
		{
			"ours", filepath.Join(s.stack, stack.Kernel),
			[]string{
				"register refused: 0x50000 is memory", "register refused: 0x50100 is memory",
				"register refused: 0x50200 is memory", "Unable to mount root fs",
			},
			[]string{"ACPI: Interpreter enabled"},
		},
		// It comes no further: the table names no FACS, and bytecode takes its lock.
		{"debian", debiansKernel(t), []string{"ACPI: Interpreter enabled"}, []string{"refused"}},
	} {
		console := rootless(t, k.kernel, "-acpitable", "file="+table)
		for _, text := range k.want {
			if !strings.Contains(console, text) {
				t.Errorf("%s: nothing says %q", k.name, text)
			}
		}
		for _, text := range k.never {
			if strings.Contains(console, text) {
				t.Errorf("%s: something says %q", k.name, text)
			}
		}
		if t.Failed() {
			t.Fatal(console)
		}
	}
}

// debiansKernel is the kernel of testdata/lock.json.
func debiansKernel(t *testing.T) string {
	t.Helper()
	debs, err := fetched(t.Context(), "debian-kernel")
	if _, gone := errors.AsType[*fetch.UnavailableError](err); gone {
		t.Skipf("Debian's mirrors keep the newest kernel alone (kattest lock internal/e2e/testdata/lock.json), and KATTEST_INPUTS has no older one: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var kernel bytes.Buffer
	err = debian.Walk(t.Context(), debs[0], func(hdr *tar.Header, r io.Reader) error {
		if !strings.Contains(hdr.Name, "boot/vmlinuz-") {
			return nil
		}
		_, err := io.Copy(&kernel, r)
		return err
	})
	if err != nil || kernel.Len() == 0 {
		t.Fatalf("a kernel of %d bytes: %v", kernel.Len(), err)
	}
	file := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(file, kernel.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A host that hides RDRAND and RDSEED does not stop a guest for want of entropy.
// On the simulated platform alone: under SEV-SNP Linux refuses to go on without.
func TestGuestWithoutRandomInstructions(t *testing.T) {
	dir := summon(t, nil, "serve", ":8080")
	g := start(t, dir, hostQEMU(t, "-cpu", "EPYC-v4,pmu=off,rdrand=off,rdseed=off"))
	r, _ := g.attest(t, dir+"/spec.json")
	r.want(t, 0)
}
