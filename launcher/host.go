package launcher

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/stack"
)

// QEMU is the program that is run.
const QEMU = "qemu-system-x86_64"

// ErrNotReady says that the host lacks what SEV-SNP needs; the error's text
// lists all of it.
var ErrNotReady = errors.New("this host cannot launch an SEV-SNP guest")

// Host is the machine as far as a launch depends on it. The fields are what
// tests replace; NewHost fills them.
type Host struct {
	// Root is the file system from its root: /proc, /sys and /dev.
	Root fs.FS
	// Ask runs QEMU with arguments that make it print something and exit.
	Ask func(ctx context.Context, args ...string) ([]byte, error)
	// Writable says whether a device may be opened for reading and writing.
	Writable func(path string) error
}

// NewHost returns the machine on which this runs.
func NewHost() Host {
	return Host{
		Root: os.DirFS("/"),
		Ask: func(ctx context.Context, args ...string) ([]byte, error) {
			return exec.CommandContext(ctx, QEMU, args...).Output()
		},
		Writable: func(path string) error {
			return unix.Access(path, unix.R_OK|unix.W_OK)
		},
	}
}

// DefaultAccel returns KVM where the processor's own virtualization stands
// behind it, and TCG elsewhere. That /dev/kvm opens says too little: a KVM
// without vmx or svm below it interprets instructions, and fails on some that
// the firmware needs.
func (h Host) DefaultAccel() Accel {
	info, err := fs.ReadFile(h.Root, "proc/cpuinfo")
	if err != nil || !hasFlag(string(info), "vmx") && !hasFlag(string(info), "svm") {
		return TCG
	}
	if h.Writable("/dev/kvm") != nil {
		return TCG
	}
	return KVM
}

func hasFlag(cpuinfo, flag string) bool {
	for line := range strings.Lines(cpuinfo) {
		name, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) == "flags" {
			return strings.Contains(" "+strings.TrimSpace(flags)+" ", " "+flag+" ")
		}
	}
	return false
}

// DefaultCBitPos is the C-bit's position on every EPYC with SEV-SNP so far.
const DefaultCBitPos = 51

// CBitPos returns CPUID 0x8000001F EBX[5:0], the position of the C-bit in a page
// table entry, or an error where the processor is not AMD's or has no SEV. It
// reads the leaf through the cpuid driver: the kernel's word, without assembly.
// Source: AMD 24594 (APM vol. 3), appendix E, CPUID Fn8000_001F.
func (h Host) CBitPos() (int, error) {
	vendor, err := h.cpuid(0)
	if err != nil {
		return 0, err
	}
	if name := string(vendor[4:8]) + string(vendor[12:16]) + string(vendor[8:12]); name != "AuthenticAMD" {
		return 0, fmt.Errorf("the processor is %q, not AMD's", name)
	}
	highest, err := h.cpuid(0x80000000)
	if err != nil {
		return 0, err
	}
	const leaf = 0x8000001f
	if binary.LittleEndian.Uint32(highest[:]) < leaf { // beyond it a processor answers at random
		return 0, errors.New("the processor has no memory encryption (CPUID 0x8000001f)")
	}
	sev, err := h.cpuid(leaf)
	if err != nil {
		return 0, err
	}
	if binary.LittleEndian.Uint32(sev[:])&(1<<4) == 0 {
		return 0, errors.New("the processor has no SEV-SNP (CPUID 0x8000001f EAX bit 4)")
	}
	return int(sev[4] & 0x3f), nil
}

// cpuid returns EAX, EBX, ECX and EDX of a leaf, 4 bytes each, little-endian.
// Source: cpuid(4): the leaf is the low half of the file position.
func (h Host) cpuid(leaf uint32) ([16]byte, error) {
	const name = "dev/cpu/0/cpuid"
	f, err := h.Root.Open(name)
	if err != nil {
		return [16]byte{}, fmt.Errorf("reading CPUID (try 'modprobe cpuid'): %w", err)
	}
	defer f.Close()
	at, ok := f.(io.ReaderAt)
	if !ok {
		return [16]byte{}, fmt.Errorf("reading CPUID: /%s cannot be read at a position", name)
	}
	var b [16]byte
	if _, err := at.ReadAt(b[:], int64(leaf)); err != nil {
		return [16]byte{}, fmt.Errorf("reading CPUID %#x: %w", leaf, err)
	}
	return b, nil
}

// CheckSNP reports everything that the host lacks to launch v with SEV-SNP, as
// one error that wraps ErrNotReady. It does not ask the secure processor for
// its state; QEMU does, and says what it finds.
func (h Host) CheckSNP(ctx context.Context, v *vm.VM) error {
	var errs []error
	missing := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if _, err := h.CBitPos(); err != nil {
		missing("%w", err)
	}
	if release, err := fs.ReadFile(h.Root, "proc/sys/kernel/osrelease"); err != nil {
		missing("%w", err)
	} else if major, minor, ok := kernelVersion(string(release)); !ok || major < 6 || major == 6 && minor < 11 {
		missing("Linux %s: KVM launches SEV-SNP guests from 6.11 on", strings.TrimSpace(string(release)))
	}
	for _, device := range []string{"/dev/kvm", "/dev/sev"} {
		if err := h.Writable(device); err != nil {
			missing("%s: %w", device, err)
		}
	}
	const parameter = "sys/module/kvm_amd/parameters/sev_snp"
	if value, err := fs.ReadFile(h.Root, parameter); errors.Is(err, fs.ErrNotExist) {
		missing("/%s is not there: the kvm_amd module is not loaded, or knows no SEV-SNP", parameter)
	} else if err != nil {
		missing("%w", err)
	} else if s := strings.TrimSpace(string(value)); s != "Y" && s != "1" {
		missing("/%s is %q: SEV-SNP is off in the BIOS, in the kernel or for want of an IOMMU", parameter, s)
	}
	errs = append(errs, h.checkQEMU(ctx, v.Config.CPU), checkFirmware(v.StackFile(stack.Firmware)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w:\n%w", ErrNotReady, indent(err))
	}
	return nil
}

func (h Host) checkQEMU(ctx context.Context, cpu string) error {
	objects, err := h.Ask(ctx, "-object", "help")
	if err != nil {
		return fmt.Errorf("%s: %w", QEMU, err)
	}
	var errs []error
	if !hasWord(objects, "sev-snp-guest") {
		errs = append(errs, fmt.Errorf("%s has no sev-snp-guest object: 9.1 or later is wanted", QEMU))
	}
	models, err := h.Ask(ctx, "-cpu", "help")
	if err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", QEMU, err))
	} else if !hasWord(models, cpu) {
		errs = append(errs, fmt.Errorf("%s has no CPU model %s", QEMU, cpu))
	}
	return errors.Join(errs...)
}

func hasWord(text []byte, word string) bool {
	for _, w := range strings.Fields(string(text)) {
		if w == word {
			return true
		}
	}
	return false
}

// checkFirmware looks for the hash table: with a firmware that has none QEMU
// stops, or a kernel boots that the measurement does not name.
func checkFirmware(file string) error {
	image, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	fw, err := measure.ParseFirmware(image)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	if _, ok := fw.HashTable(); !ok {
		return fmt.Errorf("%s has no SEV hash table: the AmdSev build of edk2 is wanted", filepath.Base(file))
	}
	return nil
}

func kernelVersion(release string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimSpace(release), ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	digits, _, _ := strings.Cut(parts[1], "-")
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(digits)
	return major, minor, err1 == nil && err2 == nil
}

// indented is a list of errors, one a line.
type indented struct{ error }

func indent(err error) error     { return indented{err} }
func (e indented) Unwrap() error { return e.error }
func (e indented) Error() string { return "  " + strings.ReplaceAll(e.error.Error(), "\n", "\n  ") }
