// Command workload is the container that the end-to-end tests boot. Its first
// argument says what it does.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := do(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func do(args []string) error {
	if len(args) == 0 {
		return errors.New("want a verb")
	}
	switch verb, args := args[0], args[1:]; verb {
	case "self":
		return self()
	case "exit":
		status, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(status)
	case "read":
		b, err := os.ReadFile(args[0])
		fmt.Printf("%d bytes\n", len(b))
		return err
	case "files":
		return files(args)
	case "reach":
		return reach()
	case "orphan":
		return orphan()
	case "abandon":
		return exec.Command("/bin/workload", "exit", "0").Start()
	case "flood":
		return flood()
	case "exhaust":
		exhaust(args[0])
	case "take":
		return take(args[0])
	case "strike":
		return strike()
	case "show":
		return show(args[0], args[1])
	case "lines":
		return lines(args[0])
	case "serve":
		return serve(args[0])
	case "bounds":
		return bounds()
	case "places":
		return places(args[0], args[1:])
	case "told":
		return told(args[0], args[1], args[2])
	case "store":
		return store(args[0], args[1], args[2])
	case "fetch":
		return fetch(args[0])
	case "dial":
		return dial(args[0])
	case "look":
		return look(args[0])
	case "dns":
		return dns(args[0])
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		time.Sleep(time.Hour)
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
	return nil
}

// fetch prints the line that a server sends. QEMU accepts before a guest listens.
func fetch(address string) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			return err
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		if err == nil || time.Now().After(deadline) {
			fmt.Print(line)
			return err
		}
	}
}

// Self is what the process sees of itself.
type Self struct {
	Args     []string
	Env      []string
	Dir      string
	UID, GID int
	Groups   []int
	Hostname string
	Caps     string // CapEff of /proc/self/status, hexadecimal
	Writable bool   // whether the root file system takes a file
}

func self() error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	s := Self{
		Args: os.Args, Env: os.Environ(), UID: os.Getuid(), GID: os.Getgid(),
		Groups: groups,
	}
	if s.Dir, err = os.Getwd(); err != nil {
		return err
	}
	if s.Hostname, err = os.Hostname(); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			s.Caps = strings.TrimSpace(v)
		}
	}
	s.Writable = os.WriteFile("/tmp/probe", nil, 0o600) == nil
	fmt.Fprintln(os.Stderr, "a line for standard error")
	return json.NewEncoder(os.Stdout).Encode(s)
}

// reach names whatever a container must not have and this one has.
func reach() error {
	var found []string
	for _, path := range []string{
		"/dev/sev-guest", "/dev/mem", "/dev/kmsg", "/dev/console", "/dev/vda", "/dev/vdb",
		"/dev/vport1p1", "/dev/vport0p1", "/dev/cpu/0/msr", "/dev/mapper", "/dev/hvc0", "/dev/ttyS0",
		"/sys/kernel/config/tsm", "/sys/kernel/debug/tracing", "/sys/kernel/security/lockdown", "/init",
	} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			found = append(found, path)
		}
	}
	if err := syscall.Mount("none", "/tmp", "tmpfs", 0, ""); err == nil {
		found = append(found, "mount")
	}
	if err := syscall.Mknod("/tmp/mem", syscall.S_IFCHR|0o600, 1<<8|1); err == nil {
		found = append(found, "mknod")
	}
	if f, err := os.OpenFile("/proc/sysrq-trigger", os.O_WRONLY, 0); err == nil {
		f.Close()
		found = append(found, "/proc/sysrq-trigger")
	}
	if f, err := os.OpenFile("/proc/sys/kernel/core_pattern", os.O_WRONLY, 0); err == nil {
		f.Close()
		found = append(found, "/proc/sys/kernel/core_pattern")
	}
	if err := os.WriteFile("/sys/kernel/mm/transparent_hugepage/enabled", []byte("never"), 0); err == nil {
		found = append(found, "a writable /sys")
	}
	if err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART); err == nil {
		found = append(found, "reboot")
	}
	if err := syscall.Kill(1, 0); os.Getpid() != 1 && err == nil {
		// PID 1 of the namespace is the container's own init: it must not be the agent.
		if exe, err := os.Readlink("/proc/1/exe"); err == nil && exe == "/init" {
			found = append(found, "the agent's process")
		}
	}
	if found != nil {
		return fmt.Errorf("within reach: %s", strings.Join(found, ", "))
	}
	fmt.Println("nothing within reach")
	return nil
}

// orphan leaves a grandchild behind, which is then this process's to reap: it is
// number 1 of its namespace, as in docker.
func orphan() error {
	child := exec.Command("/bin/workload", "abandon")
	if err := child.Run(); err != nil {
		return err
	}
	if pid, err := syscall.Wait4(-1, nil, 0, nil); err != nil || pid == child.Process.Pid {
		return fmt.Errorf("reaping the orphan: process %d, %w", pid, err)
	}
	fmt.Println("reaped the orphan")
	return nil
}

// flood writes more than any buffer between it and the host holds.
func flood() error {
	line := strings.Repeat("x", 1023) + "\n"
	for range 16 << 10 {
		if _, err := os.Stdout.WriteString(line); err != nil {
			return err
		}
	}
	return nil
}

// lines prints so many lines of 100 bytes, with their numbers from 1 on.
func lines(count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(os.Stdout)
	for i := range n {
		fmt.Fprintf(w, "%9d %s\n", i+1, strings.Repeat("x", 89))
	}
	return w.Flush()
}

// Bounds are what the process is bounded by.
type Bounds struct {
	Seccomp, NoNewPrivs string // of /proc/self/status
	Groups              []int
	Files               uint64            // RLIMIT_NOFILE, the hard one: the runtime raises the other
	Cgroup              map[string]string // files of /sys/fs/cgroup
	Hosts, Resolv       string            // the last lines of the two files
	Root, Tmp           bool              // whether they take a file
	Unshare             string            // what a new namespace fails with
}

func bounds() error {
	b := Bounds{Cgroup: map[string]string{}}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		switch name, value, _ := strings.Cut(line, ":"); name {
		case "Seccomp":
			b.Seccomp = strings.TrimSpace(value)
		case "NoNewPrivs":
			b.NoNewPrivs = strings.TrimSpace(value)
		}
	}
	if b.Groups, err = os.Getgroups(); err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	b.Files = limit.Max
	for _, name := range []string{"pids.max", "memory.max", "cpu.max"} {
		data, err := os.ReadFile("/sys/fs/cgroup/" + name)
		if err != nil {
			return err
		}
		b.Cgroup[name] = strings.TrimSpace(string(data))
	}
	for name, to := range map[string]*string{"/etc/hosts": &b.Hosts, "/etc/resolv.conf": &b.Resolv} {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		all := strings.Split(strings.TrimSpace(string(data)), "\n")
		*to = all[len(all)-1]
	}
	b.Root = os.WriteFile("/made-here", nil, 0o600) == nil
	b.Tmp = os.WriteFile("/tmp/made-here", nil, 0o600) == nil
	b.Unshare = fmt.Sprint(syscall.Unshare(syscall.CLONE_NEWUTS))
	return json.NewEncoder(os.Stdout).Encode(b)
}

// told proves that it knows a file and a variable, by their SHA-256, and serves.
func told(file, variable, address string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	fmt.Printf("file %x %v, variable %x\n", sha256.Sum256(b), info.Mode(), sha256.Sum256([]byte(os.Getenv(variable))))
	if os.WriteFile(file, nil, 0) == nil {
		return errors.New("the secret can be written")
	}
	return serve(address)
}

// serve answers every connection with a line until it is told to stop, and
// then exits with status 7.
func serve(address string) error {
	return listenAndSay(address, func() string { return "hello from the guest\n" })
}

func listenAndSay(address string, what func() string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		fmt.Println("stopped by SIGTERM")
		os.Exit(7)
	}()
	fmt.Println("serving")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		fmt.Fprint(conn, what())
		conn.Close()
	}
}
