package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/initrd"
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

// Where the host's disk is full, the workload is told so, and goes on; its twin
// is TestScratch, which writes as much.
func TestScratchOnFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("root alone makes a disk that is soon full")
	}
	small := t.TempDir()
	if err := syscall.Mount("small", small, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	made := summon(t, []string{"--scratch", "512m", "--memory", "256M", "-p", ":8080", "--console", "output"}, "store", ":8080", "/tmp/big", "200")
	dir := filepath.Join(small, "vm")
	if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
		t.Fatal(err)
	}
	restack(t, dir, s.stack)
	boot(t, dir).want(t, 1, "input/output error")
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

// keyedStack is a boot stack whose agent is handed secrets by a test: see
// guest/agent_test.go.
func keyedStack(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", program, "../../guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	agent, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return alteredStack(t, stack.Initrd, func(t *testing.T, b []byte) []byte {
		t.Helper()
		archive, err := initrd.Decompress(b)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := initrd.Parse(archive)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range entries {
			if e.Name == "init" {
				entries[i].Data = agent
			}
		}
		if archive, err = initrd.Encode(entries); err != nil {
			t.Fatal(err)
		}
		if b, err = initrd.Compress(archive); err != nil {
			t.Fatal(err)
		}
		return b
	}, true)
}

// A volume outlives its guests, and only those to which its owner gives the key
// see it.
func TestVolumes(t *testing.T) {
	stackDir := keyedStack(t)
	disk := filepath.Join(t.TempDir(), "data.img")
	summon := func(key, more string) string {
		mount := fmt.Sprintf("type=volume,source=data,target=/data/sub,size=192m,key=%s,file=%s%s", key, disk, more)
		return summon(t, []string{"--stack", stackDir, "--owner", s.pub, "--mount", mount, "-p", ":8080", "--console", "output"}, "store", ":8080", "/data/sub/file", "32")
	}
	boot(t, summon("a", "")).want(t, 5, "not one that this key has written") // a blank disk

	g := start(t, summon("a-new", ""))
	g.says(t, "stored")
	g.stop(t).want(t, 0)
	if hasPlaintext(t, disk) {
		t.Error("the disk holds plaintext")
	}
	kept, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}

	dir := summon("a", "")
	g = start(t, dir)
	g.says(t, "found")
	if got := g.ask(t); got != "intact" {
		t.Errorf("the file: %q", got)
	}
	boot(t, summon("a", "")).want(t, 1, "Failed to get") // one guest at a time
	g.stop(t).want(t, 0)

	g = start(t, summon("a", ",readonly"))
	g.says(t, "found")
	g.stop(t).want(t, 0)

	boot(t, summon("b", "")).want(t, 5, "not one that this key has written")
	boot(t, summon("a-new", "")).want(t, 5, "is not blank")
	boot(t, summon("unknown", "")).want(t, 5, `no secret "unknown"`)
	spoil(t, disk)
	boot(t, summon("a", "")).want(t, 5, "not one that this key has written")

	// The twin of all that was refused: the disk as it was.
	if err := os.WriteFile(disk, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	g = start(t, summon("a", ""))
	g.says(t, "found")
	if got := g.ask(t); got != "intact" {
		t.Errorf("the file of the restored disk: %q", got)
	}
	g.stop(t).want(t, 0)
}

// With the agent of the boot stack: the owner hands over the key, and once says that
// the volume is to be made.
func TestVolumeByUnlock(t *testing.T) {
	private, public := ownerKey(t)
	disk := filepath.Join(t.TempDir(), "data.img")
	mount := "type=volume,source=data,target=/data,size=64m,key=data.key,file=" + disk
	dir := summon(t, []string{"--owner", public, "--mount", mount, "-p", ":8080", "--console", "output"}, "store", ":8080", "/data/file", "1")
	key, other := file(t, strings.Repeat("k", 32)), file(t, strings.Repeat("x", 32))
	unlock := func(g *guest, key string, more ...string) {
		t.Helper()
		line := append([]string{"unlock", g.state.Agent.String(), "--sign", private, "--secret", "data.key=" + key}, s.references(dir+"/spec.json")...)
		run(t, s.command("kattest", append(line, more...)...)).want(t, 0, "taken: data.key")
	}
	ends := func(g *guest, text string) {
		t.Helper()
		<-g.done
		result{stdout: g.out.String(), exit: g.cmd.ProcessState.ExitCode()}.want(t, 5, text)
	}
	g := startUntil(t, dir, "serving")
	unlock(g, key)
	ends(g, "not one that this key has written") // it is blank, and nobody said that it may be
	g = startUntil(t, dir, "serving")
	unlock(g, key, "--format", "data.key")
	g.says(t, "stored")
	g.stop(t).want(t, 0)
	g = startUntil(t, dir, "serving")
	unlock(g, other)
	ends(g, "not one that this key has written")
	g = startUntil(t, dir, "serving")
	unlock(g, key)
	g.says(t, "found")
	g.stop(t).want(t, 0)
}

// An empty volume has owner and mode of the folder that it covers, as with
// docker: a user who may write there may write to it.
func TestVolumeTakesOwner(t *testing.T) {
	stackDir := keyedStack(t)
	options := func(target string) []string {
		return []string{
			"--stack", stackDir, "--owner", s.pub, "--user", "1000:1000", "-p", ":8080", "--console", "output",
			"--mount", "type=volume,source=data,size=64m,key=a-new,target=" + target,
		}
	}
	g := start(t, summon(t, options("/tmp"), "store", ":8080", "/tmp/file", "1"))
	g.says(t, "stored")
	g.stop(t)
	boot(t, summon(t, options("/made"), "store", ":8080", "/made/file", "1")).want(t, 1, "permission denied")
}

func TestTmpfs(t *testing.T) {
	options := func(mount string) []string {
		return []string{"--user", "1000:1000", "-p", ":8080", "--console", "output", "--mount", "type=tmpfs,target=/made/of/memory," + mount}
	}
	args := []string{"store", ":8080", "/made/of/memory/file", "2"}
	g := start(t, summon(t, options("tmpfs-size=4m"), args...))
	g.says(t, "stored")
	g.stop(t)
	boot(t, summon(t, options("tmpfs-size=1m"), args...)).want(t, 1, "no space left on device")
	boot(t, summon(t, options("tmpfs-mode=0755"), args...)).want(t, 1, "permission denied")
	boot(t, summon(t, options("readonly"), args...)).want(t, 1, "read-only file system")
}

// ganesha serves a folder by NFS 4 on 127.0.0.1:2049, which guests on QEMU's
// network reach as 10.0.2.2:2049. It is nfs-ganesha of testdata/lock.json: nothing is
// installed, and no server of the machine's own is started or asked.
func ganesha(t *testing.T) (export string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("nfs-ganesha opens files by their handles, which root alone may")
	}
	if free, err := net.Listen("tcp", "127.0.0.1:2049"); err != nil {
		t.Skipf("guests mount from NFS' own port alone, and this machine uses it: %v", err)
	} else {
		free.Close()
	}
	line, err := locked("nfs", "usr/bin/ganesha.nfsd", "usr/lib/ganesha", "usr/lib/x86_64-linux-gnu/libnfsidmap")
	if err != nil {
		t.Fatal(err)
	}
	plugins := filepath.Join(filepath.Dir(line[0]), "ganesha")
	dir := t.TempDir()
	export = filepath.Join(dir, "export")
	if err := os.Mkdir(export, 0o777); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
NFS_CORE_PARAM { NFS_Port = 2049; Protocols = 4; Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false; Plugins_Dir = "%s"; allow_set_io_flusher_fail = true; }
NFSv4 { Graceless = true; RecoveryRoot = "%s"; Only_Numeric_Owners = true; }
EXPORT { Export_Id = 1; Path = %s; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; FSAL { Name = VFS; } }
`, plugins, dir, export)
	file := filepath.Join(dir, "ganesha.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &buffer{}
	cmd := exec.Command(line[0], append(line[1:], "-F", "-f", file, "-L", "STDOUT", "-p", filepath.Join(dir, "pid"))...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	for limit := time.After(time.Minute); !strings.Contains(log.String(), "NFS SERVER INITIALIZED"); {
		select {
		case <-done:
			t.Fatalf("nfs-ganesha ended:\n%s", log)
		case <-limit:
			t.Fatalf("nfs-ganesha does not start:\n%s", log)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return export
}

// A guest writes to a server's export, and the server has it in clear.
func TestNFS(t *testing.T) {
	export := ganesha(t)
	options := func(source, more string) []string {
		return []string{"-p", ":8080", "--console", "output", "--mount", "type=nfs,source=" + source + ",target=/srv/nfs" + more}
	}
	args := []string{"store", ":8080", "/srv/nfs/file", "8"}
	g := start(t, summon(t, options("10.0.2.2:/export", ""), args...))
	g.says(t, "stored")
	if got := g.ask(t); got != "intact" {
		t.Errorf("the file: %q", got)
	}
	g.stop(t).want(t, 0)
	if !hasPlaintext(t, filepath.Join(export, "file")) {
		t.Error("the server does not have the file")
	}
	g = start(t, summon(t, options("10.0.2.2:/export", ",readonly"), args...))
	g.says(t, "found")
	g.stop(t).want(t, 0)
	args[2] = "/srv/nfs/other"
	boot(t, summon(t, options("10.0.2.2:/export", ",readonly"), args...)).want(t, 1, "read-only file system")
	boot(t, summon(t, options("10.0.2.2:/other", ""), args...)).want(t, 5, "mounting NFS export 10.0.2.2:/other: no such file")
}
