package platform

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"sync"

	"github.com/google/go-configfs-tsm/configfs/configfsi"

	"github.com/kraudcloud/kattest/guest/port"
)

// simulatedProvider is the attribute "provider": the kernel's is "sev_guest".
const simulatedProvider = "kattest_simulated\n"

// maxEntries bounds the entries that are open at a time.
const maxEntries = 16

const inblobSize = 64 // bytes; sev-guest takes no other size

// SimulatedClient is a configfsi.Client that behaves as configfs-tsm does on SEV-SNP,
// with a simulated PSP at the end of a port. It holds what the kernel holds: an
// attribute that was written makes a new generation, and a report is asked for
// when it is first read in a generation.
// Source: Linux 6.12, Documentation/ABI/testing/configfs-tsm.
//
// An answer that breaks the rules leaves the port in an unknown state: every
// later request fails as that one did.
type SimulatedClient struct {
	mu      sync.Mutex
	psp     io.ReadWriter
	broken  error
	entries map[string]*entry
}

type entry struct {
	inblob     []byte
	vmpl       uint32
	generation uint64               // of what was written
	answer     *port.ReportResponse // nil where it is of an older generation
}

var _ configfsi.Client = (*SimulatedClient)(nil)

// NewSimulatedClient returns a client that sends its requests through psp.
func NewSimulatedClient(psp io.ReadWriter) *SimulatedClient {
	return &SimulatedClient{psp: psp, entries: map[string]*entry{}}
}

// MkdirTemp makes an entry in the folder "report".
func (s *SimulatedClient) MkdirTemp(dir, pattern string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, err := configfsi.ParseTsmPath(dir); err != nil || p.Subsystem != "report" || p.Entry != "" {
		return "", &os.PathError{Op: "mkdir", Path: dir, Err: os.ErrNotExist}
	}
	if len(s.entries) == maxEntries {
		return "", fmt.Errorf("more than %d report entries", maxEntries)
	}
	name := configfsi.TempName(rand.Reader, pattern)
	if s.entries[name] != nil {
		return "", &os.PathError{Op: "mkdir", Path: path.Join(dir, name), Err: os.ErrExist}
	}
	s.entries[name] = &entry{}
	return path.Join(dir, name), nil
}

// ReadFile reads an attribute of an entry.
func (s *SimulatedClient) ReadFile(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, attribute, err := s.find("open", name)
	if err != nil {
		return nil, err
	}
	switch attribute {
	case "provider":
		return []byte(simulatedProvider), nil
	case "generation":
		return []byte(strconv.FormatUint(e.generation, 10) + "\n"), nil
	case "privlevel_floor":
		return []byte("0\n"), nil
	case "outblob", "auxblob":
		answer, err := s.answer(e)
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if attribute == "auxblob" {
			return append([]byte{}, answer.Certificates...), nil
		}
		return append([]byte{}, answer.Report[:]...), nil
	default:
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
}

// WriteFile writes an attribute of an entry.
func (s *SimulatedClient) WriteFile(name string, contents []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, attribute, err := s.find("open", name)
	if err != nil {
		return err
	}
	switch attribute {
	case "inblob":
		if len(contents) != inblobSize {
			return &os.PathError{Op: "write", Path: name, Err: fmt.Errorf("%d bytes, want %d", len(contents), inblobSize)}
		}
		e.inblob = append([]byte{}, contents...)
	case "privlevel":
		level, err := configfsi.Kstrtouint(contents, 10, 32)
		if err != nil || level > 3 {
			return &os.PathError{Op: "write", Path: name, Err: fmt.Errorf("%.20q is not a VMPL", contents)}
		}
		e.vmpl = uint32(level)
	default:
		return &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
	e.generation++
	e.answer = nil
	return nil
}

// RemoveAll removes an entry.
func (s *SimulatedClient) RemoveAll(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := configfsi.ParseTsmPath(name)
	if err != nil || p.Subsystem != "report" || p.Attribute != "" || s.entries[p.Entry] == nil {
		return &os.PathError{Op: "remove", Path: name, Err: os.ErrNotExist}
	}
	delete(s.entries, p.Entry)
	return nil
}

// ReadDir is not needed to get a report.
func (s *SimulatedClient) ReadDir(name string) ([]os.DirEntry, error) {
	return nil, &os.PathError{Op: "readdir", Path: name, Err: errors.ErrUnsupported}
}

func (s *SimulatedClient) find(op, name string) (*entry, string, error) {
	p, err := configfsi.ParseTsmPath(name)
	if err != nil || p.Subsystem != "report" || p.Attribute == "" || s.entries[p.Entry] == nil {
		return nil, "", &os.PathError{Op: op, Path: name, Err: os.ErrNotExist}
	}
	return s.entries[p.Entry], p.Attribute, nil
}

func (s *SimulatedClient) answer(e *entry) (*port.ReportResponse, error) {
	if e.answer != nil {
		return e.answer, nil
	}
	if e.inblob == nil {
		return nil, os.ErrInvalid
	}
	if s.broken != nil {
		return nil, s.broken
	}
	request := port.ReportRequest{ReportData: [64]byte(e.inblob), VMPL: e.vmpl}.Encode()
	answer, err := s.exchange(request[:])
	if err != nil {
		s.broken = fmt.Errorf("simulated PSP: %w", err)
		return nil, s.broken
	}
	e.answer = &answer
	return e.answer, nil
}

func (s *SimulatedClient) exchange(request []byte) (port.ReportResponse, error) {
	if _, err := s.psp.Write(request); err != nil {
		return port.ReportResponse{}, fmt.Errorf("sending a request: %w", err)
	}
	return port.ReadReportResponse(s.psp)
}
