// Command guest is a PID 1 for the launcher's tests. It plays the agent's part
// at the launcher's ports, as the first argument in its launch spec says, well
// or badly. It checks nothing, unlike the agent.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

func main() {
	for _, m := range [][2]string{{"/sys", "sysfs"}, {"/proc", "proc"}, {"/dev", "devtmpfs"}} {
		os.MkdirAll(m[0], 0o755)
		syscall.Mount(m[1], m[0], m[1], 0, "")
	}
	if err := play(); err != nil {
		tty, _ := os.OpenFile("/dev/ttyS0", os.O_WRONLY, 0)
		fmt.Fprintln(tty, "guest:", err)
	}
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

func play() error {
	args, err := readArgs()
	if err != nil {
		return err
	}
	control, err := open(port.ControlPort)
	if err != nil {
		return err
	}
	say := func(format string, a ...any) { fmt.Fprintf(control, format+"\n", a...) }
	say(`{"name":"agent","uptime":1}`)
	defer time.Sleep(200 * time.Millisecond) // until the ports are read
	switch args[0] {
	case "exit":
		say(`{"name":"started","uptime":2}`)
		for name, text := range map[string]string{port.StdoutPort: "to stdout\n", port.StderrPort: "to stderr\n"} {
			p, err := open(name)
			if err != nil {
				return err
			}
			fmt.Fprint(p, text)
		}
		say(`{"name":"exit","uptime":3,"exit":%s}`, args[1])
	case "wait":
		say(`{"name":"started","uptime":2}`)
		line, err := bufio.NewReader(control).ReadString('\n')
		if err != nil || line != port.CommandStop+"\n" {
			return fmt.Errorf("got %q, %v", line, err)
		}
		say(`{"name":"exit","uptime":3,"exit":143}`)
	case "deaf":
		say(`{"name":"started","uptime":2}`)
		time.Sleep(time.Hour)
	case "hang":
		time.Sleep(time.Hour)
	case "refuse":
		say(`{"name":"refused","uptime":2,"reason":"the spec is not\u001b[2J mine"}`)
	case "garbage":
		say("%s", strings.Repeat("x", 10*port.MaxLine))
		time.Sleep(time.Hour)
	case "silent":
	case "psp":
		return report(say)
	default:
		return fmt.Errorf("unknown part %q", args[0])
	}
	return nil
}

// report asks the simulated PSP, and exits with the first byte of HOST_DATA.
func report(say func(string, ...any)) error {
	psp, err := open(port.PSPPort)
	if err != nil {
		return err
	}
	request := port.ReportRequest{VMPL: 0}.Encode()
	if _, err := psp.Write(request[:]); err != nil {
		return err
	}
	rsp, err := port.ReadReportResponse(psp)
	if err != nil {
		return err
	}
	stdout, err := open(port.StdoutPort)
	if err != nil {
		return err
	}
	stdout.Write(rsp.Report[:])
	say(`{"name":"exit","uptime":3,"exit":%s}`, strconv.Itoa(int(rsp.Report[0xc0])))
	return nil
}

func readArgs() ([]string, error) {
	serials, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		return nil, err
	}
	for _, name := range serials {
		serial, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(string(serial)) != port.SpecDisk {
			continue
		}
		disk, err := os.Open("/dev/" + filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		data, err := port.DecodeSpecDisk(disk, pod.MaxSize)
		if err != nil {
			return nil, err
		}
		spec, err := pod.Parse(data)
		return spec.Process.Args, err
	}
	return nil, fmt.Errorf("no spec disk among %q", serials)
}

func open(want string) (*os.File, error) {
	for range 500 {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if text, err := os.ReadFile(name); err == nil && string(bytes.TrimSpace(text)) == want {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("no port %s", want)
}
