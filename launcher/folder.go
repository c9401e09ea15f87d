package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// Media types of run.json and exit.json.
const (
	StateMediaType = "application/vnd.kattest.run.v1+json"
	EndMediaType   = "application/vnd.kattest.exit.v1+json"
)

// Files in the VM's folder. All but the first outlive the run.
const (
	StateFile   = "run.json"
	EndFile     = "exit.json"
	ConsoleFile = "console.log"
)

// State is run.json, which stands in the VM's folder while the guest runs.
type State struct {
	MediaType string         `json:"mediaType"`
	PID       int            `json:"pid"`      // QEMU's
	Launcher  int            `json:"launcher"` // the launcher's process number
	Platform  string         `json:"platform"`
	Accel     string         `json:"accel"`
	Agent     netip.AddrPort `json:"agent"` // the host's address that leads to the agent
	Forwards  []vm.Forward   `json:"forwards,omitempty"`
	Began     time.Time      `json:"began"`            // QEMU's start
	Started   time.Time      `json:"started,omitzero"` // the execution of the container's process
	Health    port.Health    `json:"health,omitempty"` // how the container is, by the guest's word, where it has a healthcheck
}

// End is exit.json: how the last run ended.
type End struct {
	MediaType string    `json:"mediaType"`
	Began     time.Time `json:"began"`
	Ended     time.Time `json:"ended"`
	Exit      int       `json:"exit"`              // the container's exit status, without an error
	Error     string    `json:"error,omitempty"`   // why it did not come to an exit status
	Stopped   bool      `json:"stopped,omitempty"` // with an error: someone ended the guest
}

// folder is the VM's folder while one launcher has it to itself.
type folder struct {
	dir      string
	root     *os.Root
	file     *os.File // the folder
	lock     *os.File
	console  *os.File
	output   *outputLog
	requests *requests
}

// openFolder locks dir.
func openFolder(dir string) (*folder, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{dir: dir, root: root}
	if f.file, err = root.Open("."); err != nil {
		root.Close()
		return nil, err
	}
	if f.lock, err = lockFolder(root); err != nil {
		f.file.Close()
		root.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	f.output = &outputLog{root: root}
	return f, nil
}

// fill writes what QEMU reads besides the VM's own files.
func (f *folder) fill(l *launch) error {
	if err := f.clear(); err != nil { // what a killed launcher left
		return err
	}
	if err := f.root.Mkdir(runDir, 0o700); err != nil {
		return err
	}
	if err := f.root.WriteFile(specDisk, port.EncodeSpecDisk(l.spec), 0o600); err != nil {
		return err
	}
	if l.machine.Platform == Sim {
		table := l.hashes.Table()
		if err := f.root.WriteFile(hashTable, table[:], 0o600); err != nil {
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
	if err := removeIfThere(f.root, EndFile); err != nil {
		return err
	}
	var err error
	if f.requests, err = listen(f.file); err != nil {
		return err
	}
	f.console, err = f.root.OpenFile(ConsoleFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	return err
}

// dial connects to a socket of QEMU's.
func (f *folder) dial(name string) (net.Conn, error) {
	return net.Dial("unix", socketPath(f.file, name))
}

// socketPath names a socket below an open folder by the folder's number, as a
// socket's path may have 107 bytes at most.
// Source: unix(7), sockaddr_un.
func socketPath(folder *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)
}

// writeState puts run.json in place whole.
func (f *folder) writeState(s State) error { return f.writeWhole(StateFile, s) }

// writeEnd puts exit.json in place whole.
func (f *folder) writeEnd(e End) error { return f.writeWhole(EndFile, e) }

func (f *folder) writeWhole(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	temp := filepath.Join(runDir, name)
	if err := f.root.WriteFile(temp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return f.root.Rename(temp, name)
}

func (f *folder) clear() error {
	return errors.Join(removeIfThere(f.root, StateFile), f.root.RemoveAll(runDir))
}

func removeIfThere(root *os.Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// close leaves the folder to the next launcher. Who waits for the end of this one
// is told last.
func (f *folder) close() error {
	err := errors.Join(f.output.close(), f.clear())
	if f.console != nil {
		err = errors.Join(err, f.console.Close())
	}
	err = errors.Join(err, unlockFolder(f.root, f.lock), f.file.Close(), f.root.Close())
	if f.requests != nil {
		f.requests.close()
	}
	return err
}
