package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/initrd"
)

// volumesInitrd is an initrd whose first process is ./volumes.
func volumesInitrd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "volumes")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./volumes")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := initrd.Encode([]initrd.Entry{
		{Name: "dev", Mode: initrd.TypeDir | 0o755},
		{Name: "dev/console", Mode: initrd.TypeChar | 0o600, Major: 5, Minor: 1},
		{Name: "init", Mode: initrd.TypeFile | 0o755, Data: data},
	})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "initrd")
	if err := os.WriteFile(name, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// volumeGuest boots our kernel with such an initrd and one disk, of 64 MiB unless
// it is there.
type volumeGuest struct{ initrd, disk string }

const volumeMiB = 64

func newVolumeGuest(t *testing.T) volumeGuest {
	g := volumeGuest{volumesInitrd(t), filepath.Join(t.TempDir(), "disk")}
	f, err := os.Create(g.disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(volumeMiB << 20); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g volumeGuest) command(args ...string) *exec.Cmd {
	return exec.Command(launcher.QEMU,
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-accel", "tcg", "-machine", "q35", "-cpu", "EPYC-v4", "-smp", "1", "-m", "512M",
		"-kernel", filepath.Join(s.stack, stack.Kernel), "-initrd", g.initrd,
		"-append", "console=ttyS0 quiet panic=-1 -- "+strings.Join(args, " "), "-serial", "stdio",
		"-drive", "if=none,id=disk,format=raw,file="+g.disk, "-device", "virtio-blk-pci,drive=disk")
}

// result is what the guest says that it has come to, and its console.
func (g volumeGuest) result(t *testing.T, args ...string) (result, console string) {
	t.Helper()
	out := g.boot(t, args)
	// On a loaded machine TCG's timer may not tick while the kernel looks for it:
	// nothing has been done to the disk then.
	for range 3 {
		if !bytes.Contains(out, []byte("IO-APIC + timer doesn't work")) {
			break
		}
		out = g.boot(t, args)
	}
	for line := range strings.Lines(string(out)) {
		if _, what, ok := strings.Cut(strings.TrimSpace(line), "result: "); ok {
			return what, string(out)
		}
	}
	t.Fatalf("no result:\n%s", out)
	return "", ""
}

func (g volumeGuest) boot(t *testing.T, args []string) []byte {
	t.Helper()
	cmd := g.command(args...)
	limit := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (g volumeGuest) want(t *testing.T, want string, args ...string) (console string) {
	t.Helper()
	got, console := g.result(t, args...)
	if !strings.Contains(got, want) {
		t.Fatalf("%v: %q, want %q\n%s", args, got, want, console)
	}
	return console
}

// refused wants the volume not to be read, for whatever reason.
func (g volumeGuest) refused(t *testing.T) {
	t.Helper()
	got, console := g.result(t, "read", "a", "data", fmt.Sprint(volumeMiB))
	if got == "done" || strings.Contains(got, "WRONG DATA") {
		t.Fatalf("%q\n%s", got, console)
	}
}

// change changes the disk as its host can.
func (g volumeGuest) change(t *testing.T, f func(disk []byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(g.disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.disk, f(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (g volumeGuest) content(t *testing.T) (disk []byte) {
	g.change(t, func(b []byte) []byte { disk = bytes.Clone(b); return b })
	return disk
}

// Where dm-integrity puts things, in bytes of the disk: 62 sections of a journal
// of 264 sectors, 384 sectors of tags, data.
const (
	tagsAt = 62 * 264 * 512
	dataAt = tagsAt + 384*512
)

func TestVolume(t *testing.T) {
	g := newVolumeGuest(t)
	args := func(what string) []string { return []string{what, "a", "data", fmt.Sprint(volumeMiB)} }
	g.want(t, "not one that this key has written", args("read")...) // a blank disk is no volume
	console := g.want(t, "done", args("create")...)
	if strings.Contains(console, "ERROR") {
		t.Errorf("the kernel complains:\n%s", console)
	}
	if console := g.want(t, "done", args("read")...); strings.Contains(console, "ERROR") {
		t.Errorf("the kernel complains:\n%s", console)
	}
	whole := g.content(t)
	for _, text := range []string{"plaintext 0000", "integrt\x00", "content", "\x53\xef\x01\x00"} {
		if at := bytes.Index(whole, []byte(text)); at >= 0 {
			t.Errorf("byte %d of the disk: %q", at, text)
		}
	}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	// The file's content comes last: the middle of its last block.
	last := len(bytes.TrimRight(whole, "\x00")) - 2048
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		want   string
		args   []string
	}{
		{"another key", nil, "not one that this key has written", []string{"read", "b", "data", "64"}},
		{"another volume's disk", nil, "not one that this key has written", []string{"read", "a", "other", "64"}},
		{"another size in the spec", nil, "another size than the spec says", []string{"read", "a", "data", "65"}},
		{"cut", func(b []byte) []byte { return b[:63<<20] }, "another size than the spec says", args("read")},
		{"grown", func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) }, "another size than the spec says", args("read")},
		{"first block", flip(dataAt), "not one that this key has written", args("read")},
		{"first tag", flip(tagsAt), "not one that this key has written", args("read")},
		{"first IV", flip(tagsAt + 40), "not one that this key has written", args("read")},
		{"wiped", func(b []byte) []byte { clear(b); return b }, "not one that this key has written", args("read")},
		{"group descriptors", flip(dataAt + 4096), "mounting the volume's file system", args("read")},
		{"file", flip(last), "reading:", args("read")},
		{"two blocks of the file swapped", func(b []byte) []byte {
			x, y := bytes.Clone(b[last&^4095-8192:][:4096]), b[last&^4095-4096:][:4096]
			copy(b[last&^4095-8192:], y)
			copy(b[last&^4095-4096:], x)
			return b
		}, "reading:", args("read")},
		{"formatted once more", nil, "is not blank", args("create")},
		{"formatted with another key", nil, "is not blank", []string{"create", "b", "data", "64"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g.change(t, func([]byte) []byte { return bytes.Clone(whole) })
			if tt.change != nil {
				g.change(t, tt.change)
			}
			console := g.want(t, tt.want, tt.args...)
			if strings.Contains(console, "WRONG DATA") {
				t.Errorf("wrong data were read:\n%s", console)
			}
		})
	}
	t.Run("as it was", func(t *testing.T) {
		g.change(t, func([]byte) []byte { return bytes.Clone(whole) })
		g.want(t, "done", args("read")...)
	})
}

// A guest that is ended at any moment leaves a volume that can be read.
func TestVolumeAfterCrash(t *testing.T) {
	g := newVolumeGuest(t)
	g.want(t, "done", "create", "a", "data", fmt.Sprint(volumeMiB))
	for _, writes := range []string{"wrote 2\n", "wrote 5\n", "wrote 7\n"} {
		cmd := g.command("crash", "a", "data", fmt.Sprint(volumeMiB))
		out := &buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		limit := time.Now().Add(2 * time.Minute)
		for !strings.Contains(strings.ReplaceAll(out.String(), "\r", ""), writes) {
			if time.Now().After(limit) || strings.Contains(out.String(), "result:") {
				_ = cmd.Process.Kill()
				t.Fatalf("nothing says %q:\n%s", writes, out)
			}
			time.Sleep(10 * time.Millisecond)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		crashed := g.content(t)
		g.want(t, "done", "read", "a", "data", fmt.Sprint(volumeMiB))

		// What was to be replayed is authenticated as well.
		g.change(t, func([]byte) []byte { return bytes.Clone(crashed) })
		g.change(t, func(b []byte) []byte {
			for at := 0; at < tagsAt; at += 264 * 512 {
				b[at+80] ^= 1 // in the first entry of each section
			}
			return b
		})
		g.refused(t)
		g.change(t, func([]byte) []byte { return bytes.Clone(crashed) })
		g.change(t, func(b []byte) []byte { b[504] ^= 1; return b }) // the first commit id
		g.refused(t)
		g.change(t, func([]byte) []byte { return crashed })
		g.want(t, "done", "read", "a", "data", fmt.Sprint(volumeMiB))
	}
}

func TestScratchDisk(t *testing.T) {
	g := newVolumeGuest(t)
	g.want(t, "done", "ephemeral", "a", "scratch", fmt.Sprint(volumeMiB))
	if at := bytes.Index(g.content(t), []byte("plaintext 0000")); at >= 0 {
		t.Errorf("byte %d of the disk is plaintext", at)
	}
	// It is made anew whatever the disk holds.
	g.want(t, "done", "ephemeral", "b", "scratch", fmt.Sprint(volumeMiB))
}
