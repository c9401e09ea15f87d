package hostile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/simpsp"
)

// Variables by which this program knows that it is to be QEMU.
const (
	lieEnv  = "KATTEST_HOSTILE_LIE" // FAMILY/NAME
	qemuEnv = "KATTEST_HOSTILE_QEMU"
	pspEnv  = "KATTEST_HOSTILE_PSP"
)

// host stands between an honest launcher and QEMU, in the guest's folder: whatever
// the launcher says, this is what the guest gets.
type host struct {
	args   []string
	relays []relay
}

// relay is what passes between guest and launcher at one port.
type relay struct {
	socket string // the launcher's
	pass   func(guest, launcher net.Conn) error
}

// playHost tells the lie of that name, and runs QEMU.
func playHost(name string, args []string) int {
	h := &host{args: args}
	lie, err := find(name)
	if err == nil && lie.tell != nil {
		err = lie.tell(h)
	}
	if err == nil {
		err = h.run(os.Getenv(qemuEnv))
	}
	fmt.Fprintln(os.Stderr, "hostile:", err)
	return 1
}

// run does not return where QEMU can take this process's place: the launcher looks at
// its threads.
func (h *host) run(qemu string) error {
	if len(h.relays) == 0 {
		return syscall.Exec(qemu, append([]string{qemu}, h.args...), os.Environ())
	}
	for _, r := range h.relays {
		if err := r.start(); err != nil {
			return err
		}
	}
	runtime.LockOSThread() // QEMU ends with the thread that started it
	cmd := exec.Command(qemu, h.args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return err
	}
	os.Exit(0)
	return nil
}

const behind = ".qemu" // what QEMU's end of a relayed socket is called besides

func (r relay) start() error {
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		return err
	}
	go func() {
		launcher, err := l.Accept()
		if err != nil {
			return
		}
		defer launcher.Close()
		guest, err := net.Dial("unix", r.socket+behind)
		for ; err != nil; guest, err = net.Dial("unix", r.socket+behind) {
			time.Sleep(10 * time.Millisecond)
		}
		defer guest.Close()
		if err := r.pass(guest, launcher); err != nil {
			fmt.Fprintln(os.Stderr, "hostile:", err)
		}
	}()
	return nil
}

// replace changes arguments. That there is something to change is part of the lie.
func (h *host) replace(old, new string) error {
	found := false
	for i, arg := range h.args {
		found = found || strings.Contains(arg, old)
		h.args[i] = strings.ReplaceAll(arg, old, new)
	}
	if !found {
		return fmt.Errorf("no argument has %q", old)
	}
	return nil
}

// drop leaves out an option whose value begins so.
func (h *host) drop(value string) error {
	i := slices.IndexFunc(h.args, func(arg string) bool { return strings.HasPrefix(arg, value) })
	if i < 1 {
		return fmt.Errorf("no option's value begins with %q", value)
	}
	h.args = slices.Delete(h.args, i-1, i+1)
	return nil
}

func (h *host) add(args ...string) error {
	h.args = append(h.args, args...)
	return nil
}

// rewrite puts another file in the place of one of the guest's folder.
func rewrite(name string, change func([]byte) []byte) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	return os.WriteFile(name, change(data), 0o600)
}

// between puts pass between guest and launcher at a port.
func (h *host) between(name string, pass func(guest, launcher net.Conn) error) error {
	socket := "run/" + strings.TrimPrefix(name, "kattest.") + ".sock"
	if err := h.replace("path="+socket, "path="+socket+behind); err != nil {
		return err
	}
	h.relays = append(h.relays, relay{socket, pass})
	return nil
}

// both copies both ways.
func both(guest, launcher net.Conn) error {
	go func() { _, _ = io.Copy(guest, launcher) }()
	_, err := io.Copy(launcher, guest)
	return err
}

// silence is an answer that never comes.
var errSilence = errors.New("silence")

// psp answers in the PSP's name. lie gets the request's number, from 0, the request
// and the simulated PSP's framed answer, and returns what the guest gets.
func (h *host) psp(lie func(n int, request, answer []byte) ([]byte, error)) error {
	return h.between(port.PSPPort, func(guest, launcher net.Conn) error {
		for n := 0; ; n++ {
			var request [port.ReportRequestSize]byte
			if _, err := io.ReadFull(guest, request[:]); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if _, err := launcher.Write(request[:]); err != nil {
				return err
			}
			answer := make([]byte, 4)
			if _, err := io.ReadFull(launcher, answer); err != nil {
				return err
			}
			answer = append(answer, make([]byte, binary.LittleEndian.Uint32(answer))...)
			if _, err := io.ReadFull(launcher, answer[4:]); err != nil {
				return err
			}
			answer, err := lie(n, request[:], answer)
			if errors.Is(err, errSilence) {
				continue
			} else if err != nil {
				return err
			}
			if _, err := guest.Write(answer); err != nil {
				return err
			}
		}
	})
}

// Offsets in a framed answer: see port.ReportResponse.
const (
	statusAt   = 0x04
	sizeAt     = 0x08
	reservedAt = 0x0c
	reportAt   = 0x24
)

// Offsets in a report: see simpsp.Report.
const (
	policyAt      = 0x08
	vmplAt        = 0x30
	reportDataAt  = 0x50
	measurementAt = 0x90
	hostDataAt    = 0xc0
)

// launched is a report of a guest that the machine's own PSP launched otherwise: with
// a report of the guest as it is, change says how.
func launched(request, answer []byte, change func(measurement *[48]byte, hostData *[32]byte, policy *uint64)) ([]byte, error) {
	psp, err := simpsp.Load(os.Getenv(pspEnv))
	if err != nil {
		return nil, err
	}
	return launchedBy(psp, request, answer, change)
}

func launchedBy(psp *simpsp.PSP, request, answer []byte, change func(measurement *[48]byte, hostData *[32]byte, policy *uint64)) ([]byte, error) {
	report := answer[reportAt:]
	measurement := [48]byte(report[measurementAt : measurementAt+48])
	hostData := [32]byte(report[hostDataAt : hostDataAt+32])
	policy := binary.LittleEndian.Uint64(report[policyAt:])
	change(&measurement, &hostData, &policy)
	guest := psp.Launch(measurement, hostData, policy)
	return port.ReportResponse{
		Report: guest.Report([64]byte(request[:64]), 0), Certificates: guest.Certificates(),
	}.Encode(), nil
}
