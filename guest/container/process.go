package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process of the container's, the workload or a further one, with its
// standard streams.
type Process struct {
	// Stdin is what the process reads; nil where it has none. Closing it ends what
	// is read, but on a terminal.
	Stdin io.WriteCloser
	// Stdout is what it writes, and Stderr what it writes there; nil on a terminal.
	// Whoever started the process reads them to their end, and closes them.
	Stdout, Stderr io.ReadCloser

	terminal *os.File
	cmd      *exec.Cmd
	ended    chan struct{}
	exit     int // once it has ended
	err      error
}

// The descriptors of what the agent executes itself as, beside the standard streams.
const (
	configFD  = 3
	statusFD  = 4
	consoleFD = 5 // a socket for the terminal's other end, where there is a terminal
	targetFD  = 6 // pidfd of the workload, for a further process
)

// status is what it tells the agent if it does not become the process asked for.
type status struct {
	Exit   int    `json:"exit"` // 0: it was not got ready
	Reason string `json:"reason"`
}

const maxStatus = 16 << 10 // bytes

// spawning is a process that is being made.
type spawning struct {
	arg0            string
	config          any
	terminal, stdin bool
	target          *os.File // nil for the workload itself
	attr            *syscall.SysProcAttr
}

// start executes the agent as s.arg0 and waits until that is another program. The
// error is an *ExecError where only the last step failed.
func (s spawning) start() (_ *Process, err error) {
	config, err := json.Marshal(s.config)
	if err != nil {
		return nil, err
	}
	p := &Process{}
	var theirs, ours []*os.File
	defer func() {
		closeAll(theirs)
		if err != nil {
			closeAll(ours)
		}
	}()
	pipe := func(childReads bool) (child, parent *os.File) {
		if err != nil {
			return nil, nil
		}
		var r, w *os.File
		if r, w, err = os.Pipe(); err != nil {
			return nil, nil
		}
		child, parent = w, r
		if childReads {
			child, parent = r, w
		}
		theirs, ours = append(theirs, child), append(ours, parent)
		return child, parent
	}
	configR, configW := pipe(true)
	statusW, statusR := pipe(false)
	p.cmd = &exec.Cmd{Path: "/proc/self/exe", Args: []string{s.arg0}, Env: []string{}, SysProcAttr: s.attr}
	var console, consoleChild *os.File
	if s.terminal {
		if err == nil {
			console, consoleChild, err = socketPair()
			theirs = append(theirs, consoleChild, console)
		}
	} else {
		if s.stdin {
			r, w := pipe(true)
			p.cmd.Stdin, p.Stdin = r, w
		}
		outW, outR := pipe(false)
		errW, errR := pipe(false)
		p.cmd.Stdout, p.Stdout, p.cmd.Stderr, p.Stderr = outW, outR, errW, errR
	}
	if err != nil {
		return nil, fmt.Errorf("making pipes: %w", err)
	}
	p.cmd.ExtraFiles = []*os.File{configR, statusW, consoleChild, s.target}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("executing the container's init: %w", err)
	}
	closeAll(theirs[:2]) // so that the status ends
	if err := handshake(config, configW, statusR); err != nil {
		_ = p.cmd.Process.Kill() // it ends by itself
		_ = p.cmd.Wait()
		return nil, err
	}
	if s.terminal {
		if err := p.takeTerminal(console); err != nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
			return nil, fmt.Errorf("taking the terminal: %w", err)
		}
	}
	configW.Close()
	statusR.Close()
	p.ended = make(chan struct{})
	go p.reap()
	return p, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close() // of nil or a closed one, an error that means nothing
	}
}

// handshake hands over the configuration. Silence is success: the exec has closed
// the status' other end.
func handshake(config []byte, configW, statusR *os.File) error {
	_, writeErr := configW.Write(config)
	configW.Close()
	said, readErr := io.ReadAll(io.LimitReader(statusR, maxStatus))
	if len(said) > 0 {
		return parseStatus(said)
	}
	if err := errors.Join(writeErr, readErr); err != nil {
		return fmt.Errorf("talking to the container's init: %w", err)
	}
	return nil
}

func parseStatus(said []byte) error {
	var s status
	if err := json.Unmarshal(said, &s); err != nil {
		return fmt.Errorf("the container's init said %.80q: %w", said, err)
	}
	if s.Exit != 0 {
		return &ExecError{s.Exit, s.Reason}
	}
	return errors.New(s.Reason)
}

// Pid is the process' number outside of the container.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal to the process.
func (p *Process) Signal(sig unix.Signal) error { return p.cmd.Process.Signal(sig) }

// reap waits for the process at once, whoever asks: the workload's end waits for that
// of each further process.
func (p *Process) reap() {
	defer close(p.ended)
	err := p.cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		p.err = fmt.Errorf("waiting for the process: %w", err)
		return
	}
	p.exit = exitStatus(p.cmd.ProcessState.Sys().(syscall.WaitStatus))
}

// Wait waits for the process' end and returns its exit status. With the workload's
// end the kernel has ended every other process of the container.
func (p *Process) Wait() (int, error) {
	<-p.ended
	return p.exit, p.err
}

// Resize tells the process' terminal its size, in characters.
func (p *Process) Resize(rows, columns uint16) error {
	if p.terminal == nil {
		return errors.New("the process has no terminal")
	}
	conn, err := p.terminal.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = conn.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	return errors.Join(err, ioctlErr)
}

// takeTerminal takes the terminal's other end, which was sent before the exec.
func (p *Process) takeTerminal(console *os.File) error {
	fd, err := receiveFile(console)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return err
	}
	p.terminal = os.NewFile(uintptr(fd), "terminal")
	p.Stdin, p.Stdout = terminalInput{p.terminal}, terminalOutput{p.terminal}
	return nil
}

// terminalInput is not closed: the terminal goes on without one who types.
type terminalInput struct{ f *os.File }

// Write types p.
func (t terminalInput) Write(p []byte) (int, error) { return t.f.Write(p) }

// Close does nothing.
func (t terminalInput) Close() error { return nil }

// SetWriteDeadline bounds the time that a Write takes.
func (t terminalInput) SetWriteDeadline(at time.Time) error { return t.f.SetWriteDeadline(at) }

// terminalOutput ends where no process has the terminal any more.
type terminalOutput struct{ f *os.File }

// Read reads what was printed. It says io.EOF for the kernel's EIO.
func (t terminalOutput) Read(p []byte) (int, error) {
	n, err := t.f.Read(p)
	if errors.Is(err, unix.EIO) {
		return n, io.EOF
	}
	return n, err
}

// Close closes the terminal: what still has it gets SIGHUP.
func (t terminalOutput) Close() error { return t.f.Close() }

// exitStatus is the shell's: 128 and the signal's number where one ended it.
func exitStatus(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
