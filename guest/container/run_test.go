package container

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// inNamespace is the environment of a test in a mount namespace of its own.
const inNamespace = "KATTEST_CONTAINER_TEST"

// TestMain is also what the tests execute: the container's init, what joins a
// container, and what runs there.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case Arg0:
		os.Exit(Init())
	case ExecArg0:
		os.Exit(ExecInit())
	case ArchiveArg0:
		os.Exit(ArchiveMain())
	case ReaperArg0:
		os.Exit(Reaper())
	case "/probe":
		if err := doProbe(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	// Containers detach what is mounted.
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "without a mount namespace of its own:", err)
		os.Exit(m.Run())
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// doProbe is what runs in a container.
func doProbe(verb string, args []string) error {
	switch verb {
	case "self":
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		got := map[string]string{"Env": strings.Join(os.Environ(), " ")}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			switch key {
			case "Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Pid":
				got[key] = strings.Join(strings.Fields(value), " ")
			}
		}
		if got["Dir"], err = os.Getwd(); err != nil {
			return err
		}
		if got["Hostname"], err = os.Hostname(); err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(got)
	case "limit":
		var r unix.Rlimit
		if err := unix.Getrlimit(slices.Index(pod.RlimitNames, args[0]), &r); err != nil {
			return err
		}
		fmt.Println(r.Cur, r.Max)
	case "write":
		for _, name := range args {
			err := os.WriteFile(name, nil, 0o600)
			errno, _ := errors.AsType[syscall.Errno](err)
			fmt.Println(name, int(errno))
		}
	case "list":
		entries, err := os.ReadDir(args[0])
		for _, e := range entries {
			fmt.Println(e.Name())
		}
		return err
	case "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "terminal":
		return probeTerminal()
	case "nothing":
	case "abandon":
		child := exec.Command("/probe", "nothing")
		if err := child.Start(); err != nil {
			return err
		}
		fmt.Println(child.Process.Pid)
	case "orphan":
		return probeOrphan()
	case "sleep":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, syscall.Signal(sigRTMin+3))
		fmt.Println("ready")
		if <-stop == syscall.SIGTERM {
			os.Exit(7)
		}
		os.Exit(8)
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
	return nil
}

// probeOrphan says whether anyone waits for a process whose parent has gone.
func probeOrphan() error {
	out, err := exec.Command("/probe", "abandon").Output()
	if err != nil {
		return err
	}
	for range 100 {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(out))); errors.Is(err, os.ErrNotExist) {
			fmt.Println("reaped")
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("left")
	return nil
}

// probeTerminal waits for a line, and says what its terminal is then.
func probeTerminal() error {
	fmt.Println("ready")
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return err
	}
	name, err := os.Readlink("/proc/self/fd/0")
	if err != nil {
		return err
	}
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(tty, "%q on %s, %d by %d\n", line, name, size.Row, size.Col)
	return tty.Close()
}

// newContainer is a configuration of a root file system that holds the probe, and the
// folder of a cgroup.
func newContainer(t *testing.T, args ...string) (Config, string) {
	t.Helper()
	if os.Getenv(inNamespace) == "" {
		t.Skip("a container takes root and a mount namespace")
	}
	root, cgroups := t.TempDir(), t.TempDir()
	mount := func(source, target, fstype string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(source, target, fstype, flags, ""); err != nil {
			t.Fatalf("mounting %s: %v", target, err)
		}
		if fstype != "" {
			t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
		}
	}
	mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE)
	mount("tmpfs", root, "tmpfs", 0)
	mount("cgroup2", cgroups, "cgroup2", 0)
	if !mounted(t, "/run") {
		mount("tmpfs", "/run", "tmpfs", 0)
	}
	// The tests' processes run where these were; a container detaches its own copies.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		t.Skip("the race detector needs the C library, and a container has none")
	}
	if bytes.Contains(self[:min(len(self), 4096)], []byte("/ld-linux")) {
		t.Fatal("this test needs the C library, which a container has not: run it with CGO_ENABLED=0")
	}
	for name, data := range map[string][]byte{"probe": self, "etc/passwd": []byte(passwd), "etc/group": []byte(group), "data/file": nil} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cgroup := filepath.Join(cgroups, fmt.Sprintf("kattest-%d-%s", os.Getpid(), filepath.Base(root)))
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // a cgroup is empty a moment after its last process was reaped
		for range 50 {
			if unix.Rmdir(cgroup) == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("processes are left in %s", cgroup)
	})
	return Config{Root: root, Hostname: "vault", Process: pod.Process{
		Rlimits: possibleLimits(t),
		Args:    append([]string{"/probe"}, args...), Env: []string{"A=1"}, WorkingDir: "/work", User: "app",
		Capabilities: pod.DefaultCapabilities, StopSignal: "SIGTERM",
	}}, cgroup
}

// possibleLimits are the default ones, where root may not raise its own as far.
func possibleLimits(t *testing.T) []pod.Rlimit {
	t.Helper()
	limits := slices.Clone(defaultLimits)
	for i := range limits {
		var own unix.Rlimit
		if err := unix.Getrlimit(slices.Index(pod.RlimitNames, limits[i].Name), &own); err != nil {
			t.Fatal(err)
		}
		if uint64(limits[i].Hard) > own.Max {
			limits[i].Hard = int64(own.Max)
		}
		if uint64(limits[i].Soft) > own.Max {
			limits[i].Soft = int64(own.Max)
		}
	}
	return limits
}

func mounted(t *testing.T, dir string) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), " "+dir+" ")
}

// launch starts the container, and kills it in the end.
func launch(t *testing.T, c Config, cgroup string) *Container {
	t.Helper()
	container, err := Start(c, cgroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = container.Signal(unix.SIGKILL)
		_, _ = container.Wait()
	})
	return container
}

// finish reads what a process says until it has ended well.
func finish(t *testing.T, p *Process) string {
	t.Helper()
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	said := string(out)
	if p.Stderr != nil {
		out, err := io.ReadAll(p.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		said += string(out)
	}
	got, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if got != 0 {
		t.Fatalf("exit status %d: %s", got, said)
	}
	return said
}

// ready waits until a process has said so.
func ready(t *testing.T, p *Process) *bufio.Reader {
	t.Helper()
	r := bufio.NewReader(p.Stdout)
	if line, err := r.ReadString('\n'); strings.TrimSpace(line) != "ready" {
		t.Fatalf("%q, %v", line, err)
	}
	return r
}

func self(t *testing.T, text string) map[string]string {
	t.Helper()
	var got map[string]string
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return got
}

func TestIdentity(t *testing.T) {
	c, cgroup := newContainer(t, "self")
	plain := map[string]string{
		"Uid": "1000 1000 1000 1000", "Gid": "1001 1001 1001 1001", "Groups": "1001 1002", "Pid": "1",
		"CapEff": "0000000000000000", "CapBnd": "00000000a00425fb", "NoNewPrivs": "0", "Seccomp": "2",
		"Dir": "/work", "Hostname": "vault", "Env": "A=1 HOME=/srv/home",
	}
	if diff := cmp.Diff(plain, self(t, finish(t, launch(t, c, cgroup).Process))); diff != "" {
		t.Errorf("by default (-want +got):\n%s", diff)
	}
	c.Process.User, c.Process.Groups = "", []string{"extra", "77"}
	c.Process.NoNewPrivileges, c.Process.Seccomp = true, pod.SeccompUnconfined
	other := map[string]string{
		"Uid": "0 0 0 0", "Gid": "0 0 0 0", "Groups": "0 77 1002", "Pid": "1",
		"CapEff": "00000000a00425fb", "CapBnd": "00000000a00425fb", "NoNewPrivs": "1", "Seccomp": "0",
		"Dir": "/work", "Hostname": "vault", "Env": "A=1 HOME=/root",
	}
	if diff := cmp.Diff(other, self(t, finish(t, launch(t, c, cgroup).Process))); diff != "" {
		t.Errorf("as asked for (-want +got):\n%s", diff)
	}
	c.Process.Groups = []string{"missing"}
	if got, err := Start(c, cgroup); got != nil || err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a group that the image does not have: %v, %v", got, err)
	}
}

func TestLimits(t *testing.T) {
	c, cgroup := newContainer(t, "limit", "RLIMIT_NOFILE")
	hard := c.Process.Rlimits[0].Hard
	if got := finish(t, launch(t, c, cgroup).Process); !strings.HasSuffix(got, fmt.Sprintf(" %d\n", hard)) {
		t.Errorf("by default %q", got)
	}
	c.Process.Rlimits = append([]pod.Rlimit{{Name: "RLIMIT_NOFILE", Soft: 20, Hard: 30}, {Name: "RLIMIT_CPU", Soft: 5, Hard: -1}}, c.Process.Rlimits[1:]...)
	if got := finish(t, launch(t, c, cgroup).Process); !strings.HasSuffix(got, " 30\n") {
		t.Errorf("as asked for %q", got)
	}
	c.Process.Args = []string{"/probe", "limit", "RLIMIT_CPU"}
	if got := finish(t, launch(t, c, cgroup).Process); got != "5 18446744073709551615\n" {
		t.Errorf("as asked for %q", got)
	}
}

// A read-only root takes no writes, and volumes take them with what the image has there.
func TestReadOnlyRoot(t *testing.T) {
	c, cgroup := newContainer(t, "write", "/file", "/data/new", "/run/new", "/dev/shm/new")
	c.Process.User, c.Volumes = "", []string{"/data"}
	c.Mounts = []Mount{{Mount: pod.Mount{Type: pod.MountTmpfs, Target: "/run"}}}
	if got := finish(t, launch(t, c, cgroup).Process); got != "/file 0\n/data/new 0\n/run/new 0\n/dev/shm/new 0\n" {
		t.Errorf("with a writable root: %q", got)
	}
	c.ReadOnly = true
	want := fmt.Sprintf("/file %d\n/data/new 0\n/run/new 0\n/dev/shm/new 0\n", unix.EROFS)
	if got := finish(t, launch(t, c, cgroup).Process); got != want {
		t.Errorf("with a read-only root: %q, want %q", got, want)
	}
	c.Process.Args = []string{"/probe", "list", "/data"}
	if got := finish(t, launch(t, c, cgroup).Process); got != "file\nnew\n" {
		t.Errorf("the volume holds %q", got)
	}
}

func TestStdin(t *testing.T) {
	c, cgroup := newContainer(t, "cat")
	if got := finish(t, launch(t, c, cgroup).Process); got != "" {
		t.Errorf("without standard input: %q", got)
	}
	c.Process.Stdin = true
	container := launch(t, c, cgroup)
	if _, err := io.WriteString(container.Stdin, "said"); err != nil {
		t.Fatal(err)
	}
	container.Stdin.Close()
	if got := finish(t, container.Process); got != "said" {
		t.Errorf("with it: %q", got)
	}
}

// typeAndResize drives probeTerminal.
func typeAndResize(t *testing.T, p *Process, want string) {
	t.Helper()
	r := ready(t, p)
	if err := p.Resize(33, 77); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(p.Stdin, "typed\n"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(rest); got != "typed\r\n"+want {
		t.Errorf("the terminal shows %q, want an echo and %q", got, want)
	}
	if exit, err := p.Wait(); err != nil || exit != 0 {
		t.Errorf("exit status %d, %v", exit, err)
	}
	p.Stdout.Close()
}

func TestTerminal(t *testing.T) {
	c, cgroup := newContainer(t, "terminal")
	c.Process.Terminal = true
	typeAndResize(t, launch(t, c, cgroup).Process, "\"typed\\n\" on /dev/pts/0, 33 by 77\r\n")
}

func TestExec(t *testing.T) {
	c, cgroup := newContainer(t, "sleep")
	container := launch(t, c, cgroup)
	ready(t, container.Process)
	run := func(e Exec) *Process {
		t.Helper()
		p, err := container.Exec(e)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	got := self(t, finish(t, run(Exec{Args: []string{"/probe", "self"}, Env: []string{"A=2", "B=3"}, WorkingDir: "/etc"})))
	if got["Pid"] == "1" {
		t.Error("it is the workload itself")
	}
	delete(got, "Pid")
	want := map[string]string{
		"Uid": "1000 1000 1000 1000", "Gid": "1001 1001 1001 1001", "Groups": "1001 1002",
		"CapEff": "0000000000000000", "CapBnd": "00000000a00425fb", "NoNewPrivs": "0", "Seccomp": "2",
		"Dir": "/etc", "Hostname": "vault", "Env": "A=2 B=3 HOME=/srv/home",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the further process (-want +got):\n%s", diff)
	}
	if got := self(t, finish(t, run(Exec{Args: []string{"/probe", "self"}, User: "7:8"})))["Uid"]; got != "7 7 7 7" {
		t.Errorf("another user: %q", got)
	}
	cat := run(Exec{Args: []string{"/probe", "cat"}, Stdin: true})
	go func() {
		_, _ = cat.Stdin.Write(make([]byte, 1<<20))
		cat.Stdin.Close()
	}()
	if got := finish(t, cat); len(got) != 1<<20 {
		t.Errorf("%d bytes came back", len(got))
	}
	typeAndResize(t, run(Exec{Args: []string{"/probe", "terminal"}, Terminal: true}), "\"typed\\n\" on /dev/pts/0, 33 by 77\r\n")

	for name, e := range map[string]Exec{
		"no command":     {},
		"holds a NUL":    {Args: []string{"/probe", "a\x00b"}},
		"not NAME=value": {Args: []string{"/probe"}, Env: []string{"A"}},
		"executing":      {Args: []string{"/missing"}},
		"directory":      {Args: []string{"/probe", "self"}, WorkingDir: "/missing"},
		`user "missing"`: {Args: []string{"/probe", "self"}, User: "missing"},
	} {
		if p, err := container.Exec(e); p != nil || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}

	sleeper := run(Exec{Args: []string{"/probe", "sleep"}, Terminal: true})
	ready(t, sleeper)
	all, err := Processes(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].PID != 1 || all[0].Parent != 0 || all[0].UID != 1000 || all[0].Terminal || !all[1].Terminal {
		t.Errorf("processes: %+v", all)
	}
	for _, p := range all {
		if diff := cmp.Diff([]string{"/probe", "sleep"}, p.Args); diff != "" {
			t.Errorf("arguments (-want +got):\n%s", diff)
		}
	}
	if _, err := ReadStats(cgroup); err != nil {
		t.Error(err)
	}

	// The workload's end ends all.
	if err := container.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, err := container.Wait(); err != nil || exit != 7 {
		t.Errorf("the workload: %d, %v", exit, err)
	}
	if exit, err := sleeper.Wait(); err != nil || exit != 137 {
		t.Errorf("the further process: %d, %v", exit, err)
	}
	if p, err := container.Exec(Exec{Args: []string{"/probe", "self"}}); p != nil || err == nil {
		t.Errorf("in a container that has ended: %v, %v", p, err)
	}
}

// Archives are read and written in the container, by one who has no more than its files.
func TestArchive(t *testing.T) {
	c, cgroup := newContainer(t, "sleep")
	c.Process.Env = []string{"GODEBUG=inittrace=1"} // means nothing to the agent's program
	c.ReadOnly, c.Volumes = true, []string{"/data"}
	if err := os.Mkdir(filepath.Join(c.Root, "srv"), 0o755); err != nil {
		t.Fatal(err)
	}
	container := launch(t, c, cgroup)
	ready(t, container.Process)
	do := func(a Archive, in []byte) (out, said string, exit int) {
		t.Helper()
		p, err := container.Archive(a)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if p.Stdin != nil {
				_, _ = p.Stdin.Write(in)
				p.Stdin.Close()
			}
		}()
		data, err := io.ReadAll(p.Stdout)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(p.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		if exit, err = p.Wait(); err != nil {
			t.Fatal(err)
		}
		return string(data), string(text), exit
	}
	out, said, exit := do(Archive{Operation: ArchivePack, Path: "/etc"}, nil)
	line, packed, _ := strings.Cut(out, "\n")
	if exit != 0 || said != "" || !strings.HasPrefix(line, `{"name":"etc",`) {
		t.Fatalf("%d, %q, %q", exit, line, said)
	}
	if out, said, exit := do(Archive{Operation: ArchiveUnpack, Path: "/data", User: "app"}, []byte(packed)); out != "" || said != "" || exit != 0 {
		t.Fatalf("%d, %q, %q", exit, out, said)
	}
	var back tar.Header
	if out, _, exit := do(Archive{Operation: ArchivePack, Path: "/data/etc/passwd"}, nil); exit == 0 {
		_, packed, _ := strings.Cut(out, "\n")
		h, err := tar.NewReader(strings.NewReader(packed)).Next()
		if err != nil {
			t.Fatal(err)
		}
		back = *h
	}
	if back.Uid != 1000 || back.Gid != 1001 || back.Size != int64(len(passwd)) {
		t.Errorf("%+v", back)
	}
	for _, tt := range []struct {
		a    Archive
		in   string
		want int
		says string
	}{
		{Archive{Operation: ArchiveStat, Path: "/etc/passwd"}, "", 0, ""},
		{Archive{Operation: ArchiveStat, Path: "/missing"}, "", ArchiveNotFound, "no such file"},
		{Archive{Operation: ArchiveStat, Path: ""}, "", ArchiveRefused, "path: empty"},
		{Archive{Operation: ArchivePack, Path: "/etc/passwd/x"}, "", ArchiveRefused, "not a directory"},
		{Archive{Operation: ArchiveUnpack, Path: "/etc/passwd"}, "", ArchiveRefused, "not a directory"},
		{Archive{Operation: ArchiveUnpack, Path: "/missing"}, "", ArchiveNotFound, "no such file"},
		{Archive{Operation: ArchiveUnpack, Path: "/"}, "junk", ArchiveRefused, "archive: entry 1"},
		{Archive{Operation: ArchiveUnpack, Path: "/data", User: "missing"}, "", ArchiveFailed, "missing"},
		{Archive{Operation: ArchiveUnpack, Path: "/srv"}, packed, ArchiveReadOnly, "read-only"},
		{Archive{Operation: ArchiveStat, Path: "/proc/1/root/etc/../probe"}, "", ArchiveFailed, "permission"}, // no CAP_SYS_PTRACE
		{Archive{Operation: "other"}, "", ArchiveFailed, "unknown operation"},
	} {
		if _, said, exit := do(tt.a, []byte(tt.in)); exit != tt.want || !strings.Contains(said, tt.says) {
			t.Errorf("%+v: %d, %q; want %d, %q", tt.a, exit, said, tt.want, tt.says)
		}
	}
	out, _, exit = do(Archive{Operation: ArchivePack, Path: "/proc/self/status"}, nil)
	if exit != 0 || !strings.Contains(out, `"name":"status"`) {
		t.Errorf("%d, %q", exit, out)
	}
}
