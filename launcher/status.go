package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Phase is where in its life a guest is.
type Phase int

// The phases. The zero value is none.
const (
	_        Phase = iota
	Created        // never run
	Starting       // its container does not run yet
	Running        // its container runs
	Exited         // it ended, see Status.End
	Dead           // its launcher was killed, and it with that
)

var phases = []string{"", "created", "starting", "running", "exited", "dead"}

func (p Phase) String() string {
	if p < Created || p > Dead {
		return fmt.Sprintf("phase %d", int(p))
	}
	return phases[p]
}

// ParsePhase reads what String returns.
func ParsePhase(s string) (Phase, error) {
	for p := Created; p <= Dead; p++ {
		if phases[p] == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("unknown state %q", s)
}

// Live says that a launcher has the guest's folder.
func (p Phase) Live() bool { return p == Starting || p == Running }

// Status is what is known of a guest from its folder.
type Status struct {
	Phase Phase
	State State // where Phase is Live, and a launcher has come to write it; of the last run where it is Dead
	End   End   // where Phase is Exited
}

// ReadStatus returns the status of the guest in dir. That a launcher has it is
// told by its lock, not by a process number.
func ReadStatus(dir string) (Status, error) {
	root, err := openRoot(dir)
	if err != nil {
		return Status{}, err
	}
	defer root.Close()
	// The files of a launcher that ends while this looks are read again.
	for range 10 {
		s, settled, err := readStatus(root)
		if err != nil {
			return Status{}, fmt.Errorf("%s: %w", dir, err)
		}
		if settled {
			return s, nil
		}
	}
	return Status{}, fmt.Errorf("%s: its state changes all the time", dir)
}

func readStatus(root *os.Root) (s Status, settled bool, err error) {
	before, err := locked(root)
	if err != nil {
		return Status{}, false, err
	}
	hasState, err := readJSON(root, StateFile, &s.State)
	if err != nil {
		return Status{}, false, err
	}
	hasEnd, err := readJSON(root, EndFile, &s.End)
	if err != nil {
		return Status{}, false, err
	}
	after, err := locked(root)
	if err != nil {
		return Status{}, false, err
	}
	switch {
	case after && !s.State.Started.IsZero():
		s.Phase = Running
	case after:
		s.Phase = Starting
	case hasState:
		s.Phase = Dead
	case hasEnd:
		s.Phase = Exited
	default:
		s.Phase = Created
	}
	if s.Phase == Dead { // a whole short run may lie between the two looks at the lock
		if _, err := root.Lstat(StateFile); errors.Is(err, fs.ErrNotExist) {
			return s, false, nil
		}
	}
	return s, before == after, nil
}

// maxStateFile bounds run.json and exit.json, in bytes.
const maxStateFile = 1 << 20

func readJSON(root *os.Root, name string, v any) (there bool, err error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxStateFile))
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	return true, nil
}
