package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// StateMediaType names this version of run.json.
const StateMediaType = "application/vnd.kattest.run.v1+json"

// Files in the VM's folder. The second outlives the run.
const (
	StateFile   = "run.json"
	ConsoleFile = "console.log"
)

// State is run.json, which stands in the VM's folder while the guest runs.
type State struct {
	MediaType string         `json:"mediaType"`
	PID       int            `json:"pid"` // QEMU's
	Platform  string         `json:"platform"`
	Accel     string         `json:"accel"`
	Agent     netip.AddrPort `json:"agent"` // the host's address that leads to the agent
	Forwards  []vm.Forward   `json:"forwards,omitempty"`
}

// folder is the VM's folder while one launcher has it to itself.
type folder struct {
	dir     string
	file    *os.File // the folder, locked
	console *os.File
}

// openFolder locks dir. The lock ends with the process, whatever ends that.
func openFolder(dir string) (*folder, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrRunning)
		}
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return &folder{dir: dir, file: file}, nil
}

// fill writes what QEMU reads besides the VM's own files.
func (f *folder) fill(l *launch) error {
	if err := f.clear(); err != nil { // what a killed launcher left
		return err
	}
	if err := os.Mkdir(filepath.Join(f.dir, runDir), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(f.dir, specDisk), port.EncodeSpecDisk(l.spec), 0o600); err != nil {
		return err
	}
	if l.machine.Platform == Sim {
		table := l.hashes.Table()
		if err := os.WriteFile(filepath.Join(f.dir, hashTable), table[:], 0o600); err != nil {
			return err
		}
	}
	for _, d := range l.machine.Disks {
		if d.Scratch == 0 {
			continue
		}
		if err := vm.MakeDisk(filepath.Join(f.dir, d.File), d.Scratch); err != nil {
			return err
		}
	}
	var err error
	f.console, err = os.OpenFile(filepath.Join(f.dir, ConsoleFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	return err
}

// dial connects to a socket of QEMU's. It goes by the open folder's number, as
// a socket's path may have 107 bytes at most.
// Source: unix(7), sockaddr_un.
func (f *folder) dial(name string) (net.Conn, error) {
	return net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", f.file.Fd(), name))
}

// writeState puts run.json in place whole.
func (f *folder) writeState(s State) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	temp := filepath.Join(f.dir, runDir, StateFile)
	if err := os.WriteFile(temp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(f.dir, StateFile))
}

func (f *folder) clear() error {
	err := os.Remove(filepath.Join(f.dir, StateFile))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(f.dir, runDir)))
}

func (f *folder) close() error {
	err := f.clear()
	if f.console != nil {
		err = errors.Join(err, f.console.Close())
	}
	return errors.Join(err, f.file.Close())
}
