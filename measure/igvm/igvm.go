// Package igvm reads IGVM files, which hold an initial guest whole: pages, where
// they go, and the state of the vCPUs; and measures the guest that one makes of
// them on SEV-SNP.
//
// What a file measures as depends on who loads it. Load takes the loader: QEMU,
// for the digest that a report has, or one of the two public tools that compute
// digests from such files, where they differ. docs/igvm.md has the differences.
//
// It does not check who made the file, what the guest in it does, or whether the
// guest's memory is large enough for it. Nothing here was tried on SEV-SNP
// hardware. Of the platforms that a file may serve, SEV-SNP alone is measured.
package igvm

import (
	"io"

	"github.com/kraudcloud/kattest/measure"
)

// Bounds on a file. They are ours: they bound memory and time for any input.
const (
	MaxHeaders = 4 << 20 // bytes of variable headers: 128 Ki pages with data
	MaxPages   = 1 << 20 // pages of 4 KiB that the guest is made of: 4 GiB
)

// Is reports whether a file that starts so is an IGVM file.
func Is(prefix []byte) bool {
	return len(prefix) >= len(magic) && string(prefix[:len(magic)]) == magic
}

// File is an IGVM file: what of it concerns SEV-SNP, without the bytes of its
// pages. It is read once, and not held.
type File struct {
	version   uint32
	platforms []Platform
	policy    *uint64 // SEV-SNP's guest policy
	idBlock   *IDBlock
	// directives are those that put pages or vCPUs into an SEV-SNP guest, and the
	// contexts of SEV-ES vCPUs; in the file's order.
	directives []directive
	areas      []uint64 // of parameters: their sizes in bytes
	contexts   []context
	contents   []measure.Digest // SHA-384 of the pages that stand in the file
	pages      uint64           // of 4 KiB, that the guest is made of
	foreign    []HeaderRef      // headers that QEMU does not know, the first of each type
}

// Open reads an IGVM file of format version 1 or 2 and of size bytes. Every page
// of it that concerns SEV-SNP is hashed. An error of form is a *FormatError.
func Open(r io.ReaderAt, size int64) (*File, error) {
	p := parser{r: r, size: size, areaOf: map[uint32]area{}}
	if err := p.parse(); err != nil {
		return nil, err
	}
	if err := p.hash(); err != nil {
		return nil, err
	}
	return &p.file, nil
}

// FormatVersion returns the version of the file's format, 1 or 2.
func (f *File) FormatVersion() int { return int(f.version) }

// Platforms returns the platforms that the file serves.
func (f *File) Platforms() []Platform { return append([]Platform(nil), f.platforms...) }

// Policy returns the guest policy that the file asks for, if it asks for one.
// Without one, the host decides.
func (f *File) Policy() (policy uint64, ok bool) {
	if f.policy == nil {
		return 0, false
	}
	return *f.policy, true
}

// Pages returns the number of pages of 4 KiB that an SEV-SNP guest is made of,
// beside the states of its vCPUs.
func (f *File) Pages() int { return int(f.pages) }

// IDBlock returns the file's ID block, or nil.
func (f *File) IDBlock() *IDBlock { return f.idBlock }

// snpMask returns the bit by which headers say that they concern SEV-SNP, 0 where
// none does.
func (f *File) snpMask() uint32 {
	for _, p := range f.platforms {
		if p.Type == PlatformSNP {
			return p.Mask
		}
	}
	return 0
}
