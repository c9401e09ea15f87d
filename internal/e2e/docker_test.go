package e2e

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lockedDocker is docker's client of testdata/lock.json, as a command line.
var lockedDocker = sync.OnceValues(func() ([]string, error) { return locked("docker", "usr/bin/docker") })

// docker is a client of docker's and the socket by which it finds a guest.
type docker struct {
	line []string
	env  []string
}

// dockers are the locked client, and the machine's own if there is one.
func dockers(t *testing.T, socket string) []docker {
	t.Helper()
	line, err := lockedDocker()
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "DOCKER_HOST=unix://"+socket, "DOCKER_CONFIG="+t.TempDir())
	all := []docker{{line, env}}
	if own, err := exec.LookPath("docker"); err == nil {
		all = append(all, docker{[]string{own}, env})
	}
	return all
}

func (d docker) command(args ...string) *exec.Cmd {
	line := append(append([]string{}, d.line...), args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = d.env
	return cmd
}

// do runs a command that must end so within a minute, and say all of texts.
func (d docker) do(t *testing.T, exit int, args []string, texts ...string) result {
	t.Helper()
	return d.doWith(t, "", exit, args, texts...)
}

func (d docker) doWith(t *testing.T, input string, exit int, args []string, texts ...string) result {
	t.Helper()
	cmd := d.command(args...)
	cmd.Stdin = strings.NewReader(input)
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	r := run(t, cmd)
	if r.exit != exit {
		t.Errorf("docker %q: exit status %d, want %d", args, r.exit, exit)
	}
	r.want(t, exit, texts...)
	return r
}

// terminal is a docker command on a terminal of its own.
type terminal struct {
	master *os.File
	out    *buffer
	cmd    *exec.Cmd
	done   chan struct{}
}

func (d docker) onTerminal(t *testing.T, rows, columns uint16, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	x := &terminal{master: master, out: &buffer{}, cmd: d.command(args...), done: make(chan struct{})}
	x.resize(t, rows, columns)
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(x.out, master) }()
	go func() { defer close(x.done); _ = x.cmd.Wait() }()
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill()
		<-x.done
		master.Close()
	})
	return x
}

func (x *terminal) resize(t *testing.T, rows, columns uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(x.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
}

func (x *terminal) types(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(x.master, text); err != nil {
		t.Fatal(err)
	}
}

// shows waits until the terminal shows what fits.
func (x *terminal) shows(t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(30 * time.Second); !re.MatchString(x.out.String()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the terminal does not show %s:\n%q", pattern, x.out)
		}
	}
}

func (x *terminal) ends(t *testing.T, exit int) {
	t.Helper()
	select {
	case <-x.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("docker does not end:\n%q", x.out)
	}
	if got := x.cmd.ProcessState.ExitCode(); got != exit {
		t.Errorf("exit status %d, want %d:\n%q", got, exit, x.out)
	}
}

// connectDocker runs kattest connect --docker until it listens, and returns the socket.
func connectDocker(t *testing.T, g *guest, key string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	line := append([]string{"connect", g.state.Agent.String(), "--docker", socket, "--client-key", key}, s.references(g.dir+"/spec.json")...)
	cmd := s.command("kattest", line...)
	out := &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, "it listens", func() bool { return strings.Contains(out.String(), "listening on "+socket+" for docker\n") })
	return socket
}

// dockerGuest is a guest of the BusyBox image with clients of these operations.
func dockerGuest(t *testing.T, options []string, command ...string) *guest {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "vm")
	line := append([]string{"summon", "--stack", s.stack, "--console", "output", "--hostname", "box"}, options...)
	line = append(line, dir, makeExample(t, t.TempDir(), "busybox"))
	run(t, s.command("cradle-snp", append(line, command...)...)).want(t, 0)
	return start(t, dir)
}

// Docker's own client does in the guest what its key is allowed, and nothing else; who
// has another key, or none, gets nothing.
func TestDocker(t *testing.T) {
	whole, wholePub := ownerKey(t)
	reader, readerPub := ownerKey(t)
	stranger, _ := ownerKey(t)
	g := dockerGuest(t, []string{"--client", wholePub, "--client", readerPub + "=logs,ps", "-i"}, "/bin/sh", "-c",
		`trap 'echo ended; exit 3' TERM; echo first; echo complaint >&2; while :; do read line && echo "read $line" || sleep 0.2; done`)
	for _, d := range dockers(t, connectDocker(t, g, whole)) {
		d.do(t, 0, []string{"version"}, "kattest guest agent")
		d.do(t, 0, []string{"ps"}, "box", "Up ", `"/bin/sh -c`)
		d.do(t, 0, []string{"ps", "-q", "--filter", "name=other"})
		d.do(t, 0, []string{"inspect", "-f", "{{.Id}} {{.State.Status}} {{.Config.OpenStdin}} {{json .HostConfig.CapDrop}}", "box"}, " running true [\"ALL\"]")
		d.do(t, 1, []string{"inspect", "other"}, "o such")
		r := d.do(t, 0, []string{"logs", "--tail", "2", "box"}, "complaint")
		if r.stderr != "complaint\n" {
			t.Errorf("standard error has %q", r.stderr)
		}
		d.do(t, 0, []string{"top", "box"}, "PID", "/bin/sh -c")
		d.do(t, 0, []string{"stats", "--no-stream"}, "box", "iB / ")
		d.do(t, 0, []string{"exec", "-e", "A=b", "-w", "/etc", "-u", "7:8", "box", "sh", "-c", "echo $A $PWD $(id -u):$(id -g)"}, "b /etc 7:8")
		if r := d.do(t, 9, []string{"exec", "box", "sh", "-c", "echo out; echo err >&2; exit 9"}); r.stdout != "out\n" || r.stderr != "err\n" {
			t.Errorf("exec says %q and %q", r.stdout, r.stderr)
		}
		d.doWith(t, "one\ntwo\n", 0, []string{"exec", "-i", "box", "busybox", "wc", "-l"}, "2\n")
		d.do(t, 127, []string{"exec", "box", "missing"}, "missing")
		d.do(t, 1, []string{"exec", "--privileged", "box", "true"}, "Privileged")
		d.do(t, 0, []string{"exec", "-d", "box", "sh", "-c", "echo detached > /tmp/detached"})
		d.do(t, 125, []string{"run", "--pull", "never", "busybox"}, "page not found")
		testCopies(t, d)
		testTerminal(t, d)
	}

	// What is not allowed is refused, and noted; what is, is served.
	for _, d := range dockers(t, connectDocker(t, g, reader)) {
		d.do(t, 0, []string{"ps"}, "box")
		d.do(t, 0, []string{"logs", "box"}, "first")
		d.do(t, 0, []string{"inspect", "-f", "{{.State.Status}}{{.Config.Env}}", "box"}, "running[]") // what logs asks first, and no more
		for _, args := range [][]string{
			{"exec", "box", "true"},
			{"kill", "box"},
			{"stop", "box"},
			{"top", "box"},
			{"stats", "--no-stream", "box"},
			{"cp", "box:/etc/hostname", "-"},
			{"wait", "box"},
		} {
			d.do(t, 1, args, "the launch spec does not allow this key docker."+args[0])
		}
		d.do(t, 1, []string{"attach", "--no-stdin", "box"}, "403") // docker does not print the reason
	}
	for _, d := range dockers(t, connectDocker(t, g, stranger)) {
		d.do(t, 1, []string{"ps"}, "the guest has no docker API for this key")
	}
	if !g.runs() {
		t.Fatalf("the guest ended:\n%s", g.out)
	}
	r, evidence := g.attest(t, g.dir+"/spec.json")
	r.want(t, 0)
	kept, err := os.ReadFile(evidence)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"0 docker.exec allowed `, `"1 docker.logs allowed `, `"1 docker.exec refused `, `"1 docker.stop refused `} {
		if !strings.Contains(string(kept), `{"name":"access","value":`+want) {
			t.Errorf("the event log has no %s", want)
		}
	}
	testEnd(t, g, whole)
}

// testCopies copies both ways, folders, links and what is large.
func testCopies(t *testing.T, d docker) {
	t.Helper()
	from, to := t.TempDir(), t.TempDir()
	large := make([]byte, 8<<20)
	_, _ = rand.Read(large)
	for name, content := range map[string][]byte{"tree/a": []byte("1"), "tree/sub/large": large} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sub/large", filepath.Join(from, "tree/link")); err != nil {
		t.Fatal(err)
	}
	d.do(t, 0, []string{"exec", "box", "busybox", "rm", "-rf", "/tmp/tree"})
	d.do(t, 0, []string{"cp", from + "/tree", "box:/tmp/"})
	d.do(t, 0, []string{"exec", "box", "sh", "-c", "readlink /tmp/tree/link; stat -c %a /tmp/tree/a"}, "sub/large\n640\n")
	d.do(t, 0, []string{"cp", "box:/tmp/tree", to + "/back"})
	run(t, exec.Command("diff", "-r", "--no-dereference", from+"/tree", to+"/back")).want(t, 0)
	d.do(t, 0, []string{"cp", "-L", "box:/tmp/tree/link", to + "/followed"})
	run(t, exec.Command("cmp", from+"/tree/sub/large", to+"/followed")).want(t, 0)
	d.do(t, 1, []string{"cp", "box:/missing", to}, "missing")
	d.do(t, 1, []string{"cp", from + "/tree", "box:/etc/passwd/x"}, "not a directory")
	// A device, and a name that leads out, are refused by the guest.
	device := filepath.Join(from, "null")
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err == nil {
		d.do(t, 1, []string{"cp", device, "box:/tmp/"}, "a device node")
	}
	evil := run(t, exec.Command("tar", "-C", from, "-c", "-P", "--transform", "s,^tree/a,../../up,", "tree/a"))
	evil.want(t, 0)
	d.doWith(t, evil.stdout, 1, []string{"cp", "-", "box:/tmp"}, `holds ".."`)
	good := run(t, exec.Command("tar", "-C", from, "-c", "tree/a"))
	d.doWith(t, good.stdout, 0, []string{"cp", "-", "box:/srv"})
	d.do(t, 0, []string{"exec", "box", "busybox", "cat", "/srv/tree/a"}, "1")
}

// testTerminal runs a shell on a terminal that changes its size, and leaves one running.
func testTerminal(t *testing.T, d docker) {
	t.Helper()
	x := d.onTerminal(t, 33, 77, "exec", "-it", "box", "sh")
	x.types(t, "stty size\n")
	x.shows(t, `\n33 77\r`)
	x.resize(t, 44, 99)
	x.types(t, "sleep 1; stty size; tty\n")
	x.shows(t, `\n44 99\r\n/dev/pts/`)
	x.types(t, "exit 6\n")
	x.ends(t, 6)

	left := d.onTerminal(t, 24, 80, "exec", "-it", "box", "sh", "-c", "echo here; echo $$ > /tmp/left; sleep 1000; true")
	left.shows(t, "here")
	left.types(t, "\x10\x11")
	left.shows(t, "read escape sequence")
	d.do(t, 0, []string{"top", "box"}, "sleep 1000")
	d.do(t, 0, []string{"exec", "box", "sh", "-c", "kill -9 $(cat /tmp/left)"})
}

// testEnd follows the guest to its end.
func testEnd(t *testing.T, g *guest, key string) {
	t.Helper()
	socket := connectDocker(t, g, key)
	d := dockers(t, socket)[0]
	follow := func(args ...string) (*buffer, func() int) {
		cmd := d.command(args...)
		out := &buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if args[0] == "attach" {
			if _, err := io.WriteString(in, "typed\n"); err != nil {
				t.Fatal(err)
			}
		}
		return out, func() int { _ = cmd.Wait(); return cmd.ProcessState.ExitCode() }
	}
	events, waitEvents := follow("events", "--format", "{{.Action}}")
	logs, waitLogs := follow("logs", "-f", "box")
	exit, waitExit := follow("wait", "box")
	attached, waitAttached := follow("attach", "box")
	eventually(t, "the workload reads", func() bool { return strings.Contains(attached.String(), "read typed") })
	if strings.Contains(attached.String(), "first") {
		t.Errorf("who attaches gets what was before: %q", attached)
	}
	d.do(t, 0, []string{"kill", "-s", "WINCH", "box"})
	d.do(t, 1, []string{"kill", "-s", "NONE", "box"}, "invalid signal")
	d.do(t, 0, []string{"stop", "-t", "20", "box"})
	if code := waitLogs(); code != 0 || !strings.Contains(logs.String(), "first\n") || !strings.Contains(logs.String(), "read typed\nended\n") {
		t.Errorf("logs -f: %d, %q", code, logs)
	}
	if code := waitExit(); code != 0 || exit.String() != "3\n" {
		t.Errorf("wait: %d, %q", code, exit)
	}
	if code := waitAttached(); code != 3 {
		t.Errorf("attach: %d, %q", code, attached)
	}
	waitEvents()
	for _, want := range []string{"attach\n", "kill\n", "stop\n", "die\n"} {
		if !strings.Contains(events.String(), want) {
			t.Errorf("events are %q, without %q", events, want)
		}
	}
	<-g.done
	if code := g.cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("the guest's exit status is %d", code)
	}
}

// Whoever attaches to a workload with a terminal has that terminal, and leaves it as
// it is; one of another size, or without input, too.
func TestDockerAttach(t *testing.T) {
	key, public := ownerKey(t)
	g := dockerGuest(t, []string{"--client", public, "-i", "-t"}, "/bin/sh")
	for _, d := range dockers(t, connectDocker(t, g, key)) {
		x := d.onTerminal(t, 20, 60, "attach", "box")
		x.types(t, "echo at $((6*7)); stty size\n")
		x.shows(t, `\nat 42\r\n20 60\r`)
		second := d.command("attach", "box")
		second.Stdin = strings.NewReader("")
		if r := run(t, second); r.exit == 0 || !strings.Contains(r.stdout+r.stderr, "not a TTY") {
			t.Errorf("without a terminal: %+v", r)
		}
		other := d.onTerminal(t, 20, 60, "attach", "box")
		other.shows(t, "409") // docker does not print the reason
		other.ends(t, 1)
		x.types(t, "\x10\x11")
		x.shows(t, "read escape sequence")
		d.do(t, 0, []string{"ps"}, "Up ")
	}
	d := dockers(t, connectDocker(t, g, key))[0]
	x := d.onTerminal(t, 20, 60, "attach", "box")
	x.types(t, "exit 4\n")
	x.ends(t, 4)
	<-g.done
	if code := g.cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("the guest's exit status is %d", code)
	}
}
