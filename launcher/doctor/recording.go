package doctor

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/kraudcloud/kattest/internal/strictjson"
)

// RecordingMediaType names this version of a recording.
const RecordingMediaType = "application/vnd.kattest.host.v1+json"

// MaxRecording bounds a recording, in bytes: QEMU's lists of CPU models and
// objects are most of it.
const MaxRecording = 4 << 20

// Recording is all that a host answered, as JSON. It is a Host that answers the
// same again. It tells of the machine: its processor, kernel command line and
// software; of no guest and no key.
type Recording struct {
	MediaType string                       `json:"mediaType"`
	Note      string                       `json:"note,omitempty"`
	Want      Want                         `json:"want"` // for which it was asked
	CPUs      map[string]Answer[Registers] `json:"cpuid"`
	MSRs      map[string]Answer[Hex]       `json:"msr"`
	Files     map[string]Answer[string]    `json:"files"`
	Folders   map[string]Answer[[]string]  `json:"folders"`
	Devices   map[string]Answer[bool]      `json:"devices"`
	KVMs      map[string]Answer[int]       `json:"kvm"`
	PSPs      map[string]Answer[HexBytes]  `json:"psp"`
	QEMUs     map[string]Answer[string]    `json:"qemu"`
	Firmwares map[string]Answer[Firmware]  `json:"firmware"`
	Limits    map[string]Answer[Hex]       `json:"limits"`
}

// Answer is a value or an error.
type Answer[T any] struct {
	Value T      `json:"value,omitzero"`
	Error string `json:"error,omitempty"`
	Kind  Kind   `json:"kind,omitempty"` // with an error
}

// Kind says by which errors a caller branches.
type Kind string

// The kinds.
const (
	Other      Kind = ""
	NotExist   Kind = "not-exist"
	Permission Kind = "permission"
)

// Hex is a number that is written in hexadecimal digits, as "0x1f".
type Hex uint64

// MarshalText writes h.
func (h Hex) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint64(h)), nil }

// UnmarshalText reads what MarshalText writes.
func (h *Hex) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(string(text), "0x"), 16, 64)
	if err != nil || fmt.Sprintf("%#x", n) != string(text) {
		return fmt.Errorf("%.40q is not a number such as 0x1f", text)
	}
	*h = Hex(n)
	return nil
}

// HexBytes are bytes that are written in hexadecimal digits.
type HexBytes []byte

// MarshalText writes h.
func (h HexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads what MarshalText writes.
func (h *HexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("%.40q is not hexadecimal", text)
	}
	*h = b
	return nil
}

// recordedError is an error as it was.
type recordedError struct {
	text string
	kind Kind
}

func (e *recordedError) Error() string { return e.text }

// Is tells errors.Is of the kind.
func (e *recordedError) Is(target error) bool {
	return e.kind == NotExist && target == fs.ErrNotExist || e.kind == Permission && target == fs.ErrPermission
}

func kindOf(err error) Kind {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return NotExist
	case errors.Is(err, fs.ErrPermission):
		return Permission
	}
	return Other
}

// ParseRecording reads a recording in any JSON form. Unknown and duplicate
// members are errors.
func ParseRecording(data []byte) (*Recording, error) {
	if len(data) > MaxRecording {
		return nil, fmt.Errorf("recorded host: more than %d bytes", MaxRecording)
	}
	var r Recording
	if err := strictjson.Decode(data, &r); err != nil {
		return nil, fmt.Errorf("recorded host: %w", err)
	}
	if r.MediaType != RecordingMediaType {
		return nil, fmt.Errorf("recorded host: mediaType: %.100q, want %q", r.MediaType, RecordingMediaType)
	}
	return &r, nil
}

// Encode returns r as a file.
func (r *Recording) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("recorded host: %w", err)
	}
	return append(b, '\n'), nil
}

// replay returns a recorded answer.
func replay[T any](answers map[string]Answer[T], question string) (T, error) {
	a, ok := answers[question]
	var zero T
	switch {
	case !ok:
		return zero, fmt.Errorf("the recording has no answer to %q", question)
	case a.Error != "":
		return zero, &recordedError{a.Error, a.Kind}
	}
	return a.Value, nil
}

// The questions, as keys of a recording.
const questionMemlock = "memlock"

func question(n uint32) string { return fmt.Sprintf("%#x", n) }

func questionPSP(device string, command uint32) string { return fmt.Sprintf("%s %d", device, command) }

// CPUID replays.
func (r *Recording) CPUID(leaf uint32) (Registers, error) { return replay(r.CPUs, question(leaf)) }

// MSR replays.
func (r *Recording) MSR(register uint32) (uint64, error) {
	v, err := replay(r.MSRs, question(register))
	return uint64(v), err
}

// ReadFile replays.
func (r *Recording) ReadFile(name string) (string, error) { return replay(r.Files, name) }

// ReadDir replays.
func (r *Recording) ReadDir(name string) ([]string, error) { return replay(r.Folders, name) }

// Open replays.
func (r *Recording) Open(device string) error {
	_, err := replay(r.Devices, device)
	return err
}

// KVM replays.
func (r *Recording) KVM(capability uint32) (int, error) {
	return replay(r.KVMs, fmt.Sprint(capability))
}

// PSP replays.
func (r *Recording) PSP(device string, command uint32, _ int) ([]byte, error) {
	return replay(r.PSPs, questionPSP(device, command))
}

// QEMU replays.
func (r *Recording) QEMU(_ context.Context, args ...string) (string, error) {
	return replay(r.QEMUs, strings.Join(args, " "))
}

// Firmware replays.
func (r *Recording) Firmware(file string) (Firmware, error) { return replay(r.Firmwares, file) }

// Memlock replays.
func (r *Recording) Memlock() (uint64, error) {
	v, err := replay(r.Limits, questionMemlock)
	return uint64(v), err
}

// Recorder asks a host, and records what it answers.
type Recorder struct {
	Host Host
	Recording
}

// NewRecorder records h while it is examined for w.
func NewRecorder(h Host, w Want) *Recorder {
	return &Recorder{h, Recording{
		MediaType: RecordingMediaType,
		Want:      w,
		CPUs:      map[string]Answer[Registers]{}, MSRs: map[string]Answer[Hex]{},
		Files: map[string]Answer[string]{}, Folders: map[string]Answer[[]string]{},
		Devices: map[string]Answer[bool]{}, KVMs: map[string]Answer[int]{},
		PSPs: map[string]Answer[HexBytes]{}, QEMUs: map[string]Answer[string]{},
		Firmwares: map[string]Answer[Firmware]{}, Limits: map[string]Answer[Hex]{},
	}}
}

func record[T any](answers map[string]Answer[T], question string, v T, err error) {
	a := Answer[T]{Value: v}
	if err != nil {
		a = Answer[T]{Error: err.Error(), Kind: kindOf(err)}
	}
	answers[question] = a
}

// CPUID asks.
func (r *Recorder) CPUID(leaf uint32) (Registers, error) {
	v, err := r.Host.CPUID(leaf)
	record(r.CPUs, question(leaf), v, err)
	return v, err
}

// MSR asks.
func (r *Recorder) MSR(register uint32) (uint64, error) {
	v, err := r.Host.MSR(register)
	record(r.MSRs, question(register), Hex(v), err)
	return v, err
}

// ReadFile asks.
func (r *Recorder) ReadFile(name string) (string, error) {
	v, err := r.Host.ReadFile(name)
	record(r.Files, name, v, err)
	return v, err
}

// ReadDir asks.
func (r *Recorder) ReadDir(name string) ([]string, error) {
	v, err := r.Host.ReadDir(name)
	record(r.Folders, name, v, err)
	return v, err
}

// Open asks.
func (r *Recorder) Open(device string) error {
	err := r.Host.Open(device)
	record(r.Devices, device, err == nil, err)
	return err
}

// KVM asks.
func (r *Recorder) KVM(capability uint32) (int, error) {
	v, err := r.Host.KVM(capability)
	record(r.KVMs, fmt.Sprint(capability), v, err)
	return v, err
}

// PSP asks.
func (r *Recorder) PSP(device string, command uint32, size int) ([]byte, error) {
	v, err := r.Host.PSP(device, command, size)
	record(r.PSPs, questionPSP(device, command), v, err)
	return v, err
}

// QEMU asks.
func (r *Recorder) QEMU(ctx context.Context, args ...string) (string, error) {
	v, err := r.Host.QEMU(ctx, args...)
	record(r.QEMUs, strings.Join(args, " "), v, err)
	return v, err
}

// Firmware asks.
func (r *Recorder) Firmware(file string) (Firmware, error) {
	v, err := r.Host.Firmware(file)
	record(r.Firmwares, file, v, err)
	return v, err
}

// Memlock asks.
func (r *Recorder) Memlock() (uint64, error) {
	v, err := r.Host.Memlock()
	record(r.Limits, questionMemlock, Hex(v), err)
	return v, err
}
