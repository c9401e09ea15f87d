package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/measure"
)

// QEMU is the program that is asked.
const QEMU = "qemu-system-x86_64"

// Host is all of a machine that is read. What is not there is an error that
// wraps fs.ErrNotExist, what may not be read one that wraps fs.ErrPermission.
type Host interface {
	// CPUID returns EAX, EBX, ECX and EDX of a leaf, subleaf 0.
	CPUID(leaf uint32) (Registers, error)
	// MSR returns a model-specific register of the first processor.
	MSR(register uint32) (uint64, error)
	// ReadFile returns a small file of /proc or /sys.
	ReadFile(name string) (string, error)
	// ReadDir returns the names in a folder, sorted.
	ReadDir(name string) ([]string, error)
	// Open says whether a device may be opened for reading and writing.
	Open(device string) error
	// KVM returns what KVM_CHECK_EXTENSION answers for a capability.
	KVM(capability uint32) (int, error)
	// PSP returns size bytes that the secure processor's driver answers to a
	// command without input.
	PSP(device string, command uint32, size int) ([]byte, error)
	// QEMU returns what QEMU prints when it is asked for help.
	QEMU(ctx context.Context, args ...string) (string, error)
	// Firmware says what a firmware image has tables for.
	Firmware(file string) (Firmware, error)
	// Memlock returns the limit of locked memory, in bytes.
	Memlock() (uint64, error)
}

// Firmware is what a firmware image has tables for.
type Firmware struct {
	SNP          bool     `json:"snp"`          // QEMU can launch it with SEV-SNP
	HashTable    uint32   `json:"hashTable"`    // address of the SEV hash table; 0 where there is none
	KernelHashes bool     `json:"kernelHashes"` // the table stands in a page that is measured
	Problems     []string `json:"problems"`
}

// Local is the machine on which this runs.
type Local struct{}

// CPUID executes the instruction.
func (Local) CPUID(leaf uint32) (Registers, error) { return cpuid(leaf) }

// MSR asks the msr driver.
// Source: msr(4): the register is the file position.
func (Local) MSR(register uint32) (uint64, error) {
	f, err := os.Open("/dev/cpu/0/msr")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [8]byte
	if _, err := f.ReadAt(b[:], int64(register)); err != nil {
		return 0, fmt.Errorf("reading MSR %#x: %w", register, err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// ReadFile reads a file.
func (Local) ReadFile(name string) (string, error) {
	data, err := os.ReadFile(name)
	return string(data), err
}

// ReadDir lists a folder.
func (Local) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Open asks for the right to open; it opens nothing, as that may have effects.
func (Local) Open(device string) error {
	if err := unix.Access(device, unix.R_OK|unix.W_OK); err != nil {
		return &os.PathError{Op: "open", Path: device, Err: err}
	}
	return nil
}

// kvmCheckExtension is KVM_CHECK_EXTENSION.
// Source: Linux 6.12, include/uapi/linux/kvm.h.
const kvmCheckExtension = 0xae03

// KVM asks /dev/kvm.
func (Local) KVM(capability uint32) (int, error) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), kvmCheckExtension, uintptr(capability))
	if errno != 0 {
		return 0, fmt.Errorf("asking /dev/kvm for capability %d: %w", capability, errno)
	}
	return int(n), nil
}

// sevIssueCommand is SEV_ISSUE_CMD.
// Source: Linux 6.12, include/uapi/linux/psp-sev.h.
const sevIssueCommand = 0xc0105300

// PSP asks the secure processor's driver.
//
// The request, struct sev_issue_cmd, packed:
//
//	offset  size  field
//	0       4     cmd
//	4       8     data, an address
//	12      4     error, the firmware's
func (Local) PSP(device string, command uint32, size int) ([]byte, error) {
	f, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	answer := make([]byte, size)
	var request [16]byte
	var pin runtime.Pinner
	pin.Pin(&answer[0])
	defer pin.Unpin()
	binary.LittleEndian.PutUint32(request[0:], command)
	binary.LittleEndian.PutUint64(request[4:], uint64(uintptr(unsafe.Pointer(&answer[0]))))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), sevIssueCommand, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return nil, fmt.Errorf("%s: command %d: %w (firmware error %#x)", device, command, errno, binary.LittleEndian.Uint32(request[12:]))
	}
	return answer, nil
}

// QEMU runs QEMU.
func (Local) QEMU(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, QEMU, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s %s: %w: %.200q", QEMU, strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}

// Firmware reads a firmware image.
func (Local) Firmware(file string) (Firmware, error) {
	info, err := os.Stat(file)
	if err != nil {
		return Firmware{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > measure.MaxFirmware {
		return Firmware{}, fmt.Errorf("%s: not a file of at most %d bytes", file, measure.MaxFirmware)
	}
	image, err := os.ReadFile(file)
	if err != nil {
		return Firmware{}, err
	}
	in, err := measure.InspectFirmware(image)
	if err != nil {
		return Firmware{}, fmt.Errorf("%s: %w", file, err)
	}
	f := Firmware{SNP: in.Abilities.SNP, HashTable: in.HashTable, KernelHashes: in.Abilities.KernelHashes, Problems: []string{}}
	for _, p := range in.Problems {
		f.Problems = append(f.Problems, p.What)
	}
	return f, nil
}

// Memlock asks for this process's limit.
func (Local) Memlock() (uint64, error) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	return limit.Cur, err
}
