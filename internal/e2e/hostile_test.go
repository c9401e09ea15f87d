package e2e

import (
	"archive/tar"
	"bytes"
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
	"github.com/kraudcloud/kattest/reproducible/debian"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
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
	qemu := exec.Command(launcher.QEMU, append([]string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg",
		"-machine", "q35", "-cpu", "EPYC-v4", "-m", "1G", "-kernel", debiansKernel(t),
		"-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio",
	}, args...)...)
	console, err := qemu.CombinedOutput() // it ends for want of a root file system
	if err != nil {
		t.Fatalf("%v\n%s", err, console)
	}
	want := []string{
		"low reads 0x50000",
		"low found 0x0",
		"low wrote 0x21444142",
		"high reads 0x10000000",
		"high found 0x0",
		"high wrote 0x21444142",
		"table reads 0x4",
		"table found 0x234",
		"table wrote 0x7FFFFFFF",
		"device reads 0xFEC00000",
		"device found 0x170020",
	}
	if diff := cmp.Diff(want, lines(t, told)); diff != "" {
		t.Errorf("what the bytecode told the host (-want +got):\n%s\n%s", diff, console)
	}
}

// debiansKernel brings the kernel of testdata/lock.json from the cache that
// kattest build uses, from the folders of KATTEST_INPUTS, or from this machine's
// mirrors.
func debiansKernel(t *testing.T) string {
	t.Helper()
	l, err := lock.Load("testdata/lock.json")
	if err != nil {
		t.Fatal(err)
	}
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	f := &fetch.Fetcher{Cache: filepath.Join(user, "kattest"), Folders: filepath.SplitList(os.Getenv("KATTEST_INPUTS"))}
	deb, err := f.Get(t.Context(), l.Inputs[0])
	if _, gone := errors.AsType[*fetch.UnavailableError](err); gone {
		t.Skipf("Debian's mirrors keep the newest kernel alone (kattest lock internal/e2e/testdata/lock.json), and KATTEST_INPUTS has no older one: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var kernel bytes.Buffer
	err = debian.Walk(t.Context(), deb, func(hdr *tar.Header, r io.Reader) error {
		if !strings.Contains(hdr.Name, "boot/vmlinuz-") {
			return nil
		}
		_, err := io.Copy(&kernel, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
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
