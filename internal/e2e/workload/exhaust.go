package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// exhaust has a process of its own take all there is of something, again and again, and
// says each time how that ended.
func exhaust(what string) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(7)
	}()
	for n := 1; ; n++ {
		child := exec.Command("/bin/workload", "take", what)
		child.Stdout, child.Stderr = os.Stdout, os.Stdout
		fmt.Printf("round %d: %v\n", n, child.Run())
		time.Sleep(10 * time.Millisecond) // the one who stops it gets its turn
	}
}

// take returns why there is no more, if it lives to see it.
func take(what string) error {
	switch what {
	case "memory":
		for kept := [][]byte{}; ; {
			block := make([]byte, 16<<20)
			for i := 0; i < len(block); i += os.Getpagesize() {
				block[i] = 1
			}
			kept = append(kept, block)
		}
	case "processes":
		runtime.LockOSThread() // with which the others end
		for {
			child := exec.Command("/bin/workload", "deaf")
			child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := child.Start(); err != nil {
				return err
			}
		}
	case "files":
		f, err := os.OpenFile("/tmp/fill", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		for err == nil {
			_, err = f.Write(make([]byte, 1<<20))
		}
		return err
	case "descriptors":
		for full := make([]byte, 64<<10); ; {
			var pipe [2]int
			if err := syscall.Pipe2(pipe[:], syscall.O_NONBLOCK); err != nil {
				return err
			}
			_, _ = syscall.Write(pipe[1], full) // as much as it holds
		}
	case "output":
		for range 16 {
			if _, err := os.Stdout.WriteString(strings.Repeat("x", 1<<20) + "\n"); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("unknown: %q", what)
}

// strike sends a signal to every process that it may signal, looks whether any number
// but its own is somebody's, and writes where the kernel would listen.
func strike() error {
	own := exec.Command("/bin/workload", "deaf")
	if err := own.Start(); err != nil {
		return err
	}
	if err := syscall.Kill(-1, syscall.SIGKILL); err != nil { // all but itself and the first, which it is
		return err
	}
	if err := own.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		return fmt.Errorf("its own process: %w", err)
	}
	for pid := 2; pid < 1<<22; pid++ { // the highest that Linux gives
		if err := syscall.Kill(pid, 0); err == nil && groupOf(pid) != os.Getpid() {
			return fmt.Errorf("process %d may be signalled", pid)
		}
	}
	for _, name := range []string{"/proc/sys/kernel/panic", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run"} {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		_, err = f.WriteString("1")
		f.Close()
		if err == nil {
			return fmt.Errorf("%s was written", name)
		}
	}
	fmt.Println("its own alone was struck")
	return nil
}

// groupOf is the process that a thread belongs to, or 0 if the container sees none.
func groupOf(thread int) (pid int) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	for line := range strings.Lines(string(status)) {
		if n, err := fmt.Sscanf(line, "Tgid: %d", &pid); n == 1 && err == nil {
			return pid
		}
	}
	return 0
}

// show serves what a file says at the time, without end.
func show(file, address string) error {
	return listenAndSay(address, func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			return err.Error()
		}
		return string(b)
	})
}
