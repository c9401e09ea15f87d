package launcher

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// process is QEMU.
type process struct {
	cmd    *exec.Cmd
	stderr tail
	done   chan struct{} // closed at its end
	err    error         // from Wait, once done is closed
}

// startProcess runs QEMU in a process group of its own, so that a terminal's
// Ctrl-C reaches the launcher alone.
func startProcess(dir string, args []string, inherited ...*os.File) (*process, error) {
	p := &process{cmd: exec.Command(QEMU, args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stderr = &p.stderr
	p.cmd.ExtraFiles = inherited
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// Pdeathsig is of the thread that started the process: it must live as long.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	return p, nil
}

// kill ends QEMU at once. Volumes are then as after a crash.
func (p *process) kill() { _ = p.cmd.Process.Kill() } // it may have ended already

// maxComplaint bounds complaint, in lines: where KVM fails, QEMU prints a whole
// page of registers.
const maxComplaint = 4

// complaint is the start of what QEMU said, without its warnings: under TCG there
// is one for each of the CPU model's features that TCG lacks.
func (p *process) complaint() string {
	var lines []string
	for line := range strings.Lines(p.stderr.String()) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.Contains(line, "warning:") && len(lines) < maxComplaint {
			lines = append(lines, printable(line))
		}
	}
	return strings.Join(lines, "\n")
}

// tail keeps the last bytes that are written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
