package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/measure"
)

// End says how a boot ended.
type End int

// The ends. The zero value is none.
const (
	_       End = iota
	Ran         // the kernel said so
	Spent       // QEMU used many times the processor time of the right boot, and no kernel ran
	Idle        // the guest did nothing for many times the right boot's time, and no kernel ran
	Exited      // QEMU ended
	TimeOut     // neither of these
)

// ParseEnd reads what String writes.
func ParseEnd(s string) (End, error) {
	for _, e := range []End{Ran, Spent, Idle, Exited, TimeOut} {
		if s == e.String() {
			return e, nil
		}
	}
	return 0, fmt.Errorf("unknown end %.100q", s)
}

func (e End) String() string {
	switch e {
	case Ran:
		return "the kernel ran"
	case Spent:
		return "no kernel after many times the work"
	case Idle:
		return "no kernel, the guest stands still"
	case Exited:
		return "QEMU ended"
	case TimeOut:
		return "time-out"
	default:
		return fmt.Sprintf("end %d", int(e))
	}
}

// Refused says whether the firmware had its chance and took it not.
func (e End) Refused() bool { return e == Spent || e == Idle }

// MarshalText returns what String does.
func (e End) MarshalText() ([]byte, error) {
	if _, err := ParseEnd(e.String()); err != nil {
		return nil, err
	}
	return []byte(e.String()), nil
}

// UnmarshalText reads what MarshalText returns.
func (e *End) UnmarshalText(text []byte) error {
	parsed, err := ParseEnd(string(text))
	if err != nil {
		return err
	}
	*e = parsed
	return nil
}

// patience is how long a boot may take. Work is counted in processor time of
// QEMU: on a loaded machine the clock says little.
type patience struct {
	work  time.Duration // without a kernel: it was refused
	idle  time.Duration // by the clock, with next to nothing done: refused
	limit time.Duration // by the clock
}

// A refusal is told from a slow boot by a multiple of the right boot, and no
// less than these.
const (
	patienceFactor = 6
	leastWork      = 5 * time.Second
	leastIdle      = 10 * time.Second
	leastLimit     = 3 * time.Minute
	idleShare      = 20 // a guest that uses less than 1/20 of a processor does nothing
)

var firstPatience = patience{work: 2 * time.Minute, idle: time.Minute, limit: 5 * time.Minute}

func patienceAfter(first Boot) patience {
	took := time.Duration(first.Milliseconds) * time.Millisecond
	worked := time.Duration(first.CPUMilliseconds) * time.Millisecond
	return patience{
		work:  max(leastWork, patienceFactor*worked),
		idle:  max(leastIdle, patienceFactor*took),
		limit: max(leastLimit, 4*patienceFactor*took),
	}
}

// booter boots one firmware.
type booter struct {
	image []byte
	table uint32 // address of the hash table
	accel launcher.Accel
}

// memoryMiB is the guest's memory. It lies above initrdMax.
const memoryMiB = 256

// cmdline is the kernel's; QEMU takes it from its command line.
const cmdline = "kattest probe"

// Names in the folder of a boot.
const (
	firmwareFile = "firmware.fd"
	kernelFile   = "kernel.efi"
	initrdFile   = "initrd"
	tableFile    = "hashes.bin"
	shimFile     = "shim.efi"
	romFile      = "option.rom"
)

// boot boots once, in a folder of its own.
func (b booter) boot(ctx context.Context, s scenario, p patience) (_ Boot, err error) {
	dir, err := os.MkdirTemp("", "kattest-probe-*")
	if err != nil {
		return Boot{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	line := token()
	if err := b.write(dir, line, s); err != nil {
		return Boot{}, err
	}
	var complaint tail
	console := newConsole(line)
	qemu := exec.Command(launcher.QEMU, b.args(s)...)
	qemu.Dir, qemu.Stdout, qemu.Stderr = dir, console, &complaint
	qemu.WaitDelay = time.Second // its output ends with it
	// Pdeathsig is of the thread that starts the process: this one, to the end.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	qemu.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := qemu.Start(); err != nil {
		return Boot{}, fmt.Errorf("starting QEMU: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = qemu.Wait() // how it ends says nothing: it is killed
		close(exited)
	}()
	end, cpu := watch(ctx, qemu.Process.Pid, console.seen, exited, p)
	took := time.Since(began)
	_ = qemu.Process.Kill() // it may have ended
	<-exited
	if err := ctx.Err(); err != nil {
		return Boot{}, err
	}
	if end == Exited {
		return Boot{}, fmt.Errorf("QEMU ended: %s", complaint.text())
	}
	return Boot{
		Case:            s.name,
		Booted:          end == Ran,
		Ended:           end,
		Milliseconds:    took.Milliseconds(),
		CPUMilliseconds: cpu.Milliseconds(),
		Console:         console.lastLine(line),
	}, nil
}

// write makes the files of a boot. The firmware is written from the bytes that
// are judged.
func (b booter) write(dir, line string, s scenario) error {
	says := payload("\r\n" + line + "\r\n")
	kernel, initrd := says, make([]byte, initrdSize)
	if s.program != noProgram {
		kernel = payload("\r\n")
	}
	copy(initrd, line)
	hashes, err := measure.HashKernel(bytes.NewReader(kernel), bytes.NewReader(initrd), cmdline)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		firmwareFile: b.image, kernelFile: kernel, initrdFile: initrd, shimFile: says, romFile: romOf(says),
	}
	if s.table != nil {
		s.table(&hashes)
		table := hashes.Table()
		files[tableFile] = table[:]
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// args is the launcher's machine, with nothing but what the firmware needs to
// boot a kernel: what it does may not depend on a disk or a network.
func (b booter) args(s scenario) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-accel", b.accel.String(),
		"-cpu", "EPYC-v4,pmu=off",
		"-m", strconv.Itoa(memoryMiB) + "M",
		"-machine", "q35,smm=off,vmport=off,hpet=off,sata=off,smbus=off",
		"-bios", firmwareFile,
		"-kernel", kernelFile,
		"-initrd", initrdFile,
		"-append", cmdline,
		"-serial", "stdio",
	}
	switch s.program {
	case shim: // as QEMU 10 names it for -shim, which older ones lack
		args = append(args, "-fw_cfg", "name=etc/boot/shim,file="+shimFile)
	case optionROM:
		args = append(args, "-device", "virtio-rng-pci,romfile="+romFile)
	}
	if s.table != nil {
		args = append(args, "-device", fmt.Sprintf("loader,file=%s,addr=%#x,force-raw=on", tableFile, b.table))
	}
	return args
}

// watchInterval is how often QEMU's processor time is read.
const watchInterval = 100 * time.Millisecond

// watch waits for a boot's end, and returns the processor time that it took.
func watch(ctx context.Context, pid int, seen, exited <-chan struct{}, p patience) (End, time.Duration) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	began := time.Now()
	var cpu, markCPU, mark time.Duration // mark: when the guest last did something
	for {
		select {
		case <-seen:
			return Ran, max(cpu, processTime(pid))
		case <-exited:
			return Exited, cpu
		case <-ctx.Done():
			return TimeOut, cpu
		case <-ticker.C:
		}
		clock := time.Since(began)
		cpu = max(cpu, processTime(pid))
		if cpu-markCPU > p.idle/idleShare {
			mark, markCPU = clock, cpu
		}
		switch {
		case cpu >= p.work:
			return Spent, cpu
		case clock-mark >= p.idle:
			return Idle, cpu
		case clock >= p.limit:
			return TimeOut, cpu
		}
	}
}

// processTime returns the processor time that a process has used, or 0 where
// it has ended.
// Source: proc_pid_stat(5), fields 14 (utime) and 15 (stime), in units of
// 1/100 s on Linux/x86 (USER_HZ).
func processTime(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// Field 2 is the name in parentheses and may hold anything.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	var ticks uint64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// tail keeps the first bytes of what QEMU complains about.
type tail struct{ b bytes.Buffer }

const tailSize = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	if left := tailSize - t.b.Len(); left > 0 {
		t.b.Write(p[:min(left, len(p))])
	}
	return len(p), nil
}

// text leaves out the warnings: under TCG there is one for each of the CPU
// model's features that TCG lacks.
func (t *tail) text() string {
	for line := range strings.Lines(t.b.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "warning:") {
			return line
		}
	}
	return "without a word"
}
