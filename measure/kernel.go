package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
)

// KernelHashes are the SHA-256 of what the firmware boots directly.
type KernelHashes struct {
	Cmdline Hash `json:"cmdline"` // of its bytes and one NUL
	Initrd  Hash `json:"initrd"`
	Kernel  Hash `json:"kernel"`
}

// HashKernel reads kernel, initrd and command line as QEMU hashes them: the
// kernel's file as it is; the initrd, or nothing where it is nil; the command
// line's bytes and one NUL. A command line that holds a NUL is an error. Kernel
// and initrd are read at the same time.
// Source: QEMU 10.0.2, target/i386/sev.c, build_kernel_loader_hashes.
func HashKernel(kernel, initrd io.Reader, cmdline string) (KernelHashes, error) {
	if initrd == nil {
		initrd = strings.NewReader("")
	}
	var initrdHash Hash
	var initrdErr error
	var wg sync.WaitGroup
	wg.Go(func() { initrdHash, initrdErr = HashOf(initrd) })
	kernelHash, err := HashOf(kernel)
	wg.Wait()
	switch {
	case err != nil:
		return KernelHashes{}, fmt.Errorf("hashing the kernel: %w", err)
	case initrdErr != nil:
		return KernelHashes{}, fmt.Errorf("hashing the initrd: %w", initrdErr)
	}
	return NewKernelHashes(kernelHash, initrdHash, cmdline)
}

// NoInitrd is the hash of the initrd where there is none: of nothing.
func NoInitrd() Hash { return sha256.Sum256(nil) }

// NewKernelHashes returns the hashes of a kernel and an initrd that were hashed
// before, and of a command line.
func NewKernelHashes(kernel, initrd Hash, cmdline string) (KernelHashes, error) {
	if i := strings.IndexByte(cmdline, 0); i >= 0 {
		return KernelHashes{}, fmt.Errorf("hashing the command line: NUL at offset %d", i)
	}
	return KernelHashes{Kernel: kernel, Initrd: initrd, Cmdline: sha256.Sum256(append([]byte(cmdline), 0))}, nil
}

// GUIDs of the SEV hash table. Source: QEMU 10.0.2, target/i386/sev.c.
var (
	guidHashTable   = mustGUID("9438d606-4f22-4cc9-b479-a793d411fd21")
	guidHashCmdline = mustGUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
	guidHashInitrd  = mustGUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
	guidHashKernel  = mustGUID("4de79437-abd2-427f-b835-d5b172d2045b")
)

// HashTableSize is the size of the SEV hash table in bytes.
const HashTableSize = 176

// Table returns the SEV hash table, as it stands in guest memory.
//
//	offset  size  field
//	0x00    16    GUID 9438d606-4f22-4cc9-b479-a793d411fd21
//	0x10    2     length, 168, little-endian
//	0x12    50    command line: GUID 97d02dd8-…, u16 50, SHA-256
//	0x44    50    initrd: GUID 44baf731-…, u16 50, SHA-256
//	0x76    50    kernel: GUID 4de79437-…, u16 50, SHA-256
//	0xa8    8     zeros, to a multiple of 16
//
// Source: QEMU 10.0.2, target/i386/sev.c, PaddedSevHashTable.
func (h KernelHashes) Table() [HashTableSize]byte {
	const entry = 50
	var t [HashTableSize]byte
	le := binary.LittleEndian
	copy(t[0x00:], guidHashTable[:])
	le.PutUint16(t[0x10:], 168)
	for i, e := range []struct {
		guid guid
		hash Hash
	}{{guidHashCmdline, h.Cmdline}, {guidHashInitrd, h.Initrd}, {guidHashKernel, h.Kernel}} {
		b := t[0x12+i*entry:]
		copy(b, e.guid[:])
		le.PutUint16(b[16:], entry)
		copy(b[18:], e.hash[:])
	}
	return t
}

// page returns the page that holds the table: zeros, and the table where the
// firmware wants it.
func (h KernelHashes) page(table uint32) *[PageSize]byte {
	var b [PageSize]byte
	t := h.Table()
	copy(b[table%PageSize:], t[:])
	return &b
}
