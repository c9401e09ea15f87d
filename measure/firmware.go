package measure

import (
	"runtime"
	"sync"
)

// Firmware is a parsed firmware image, and the digest after it.
type Firmware struct {
	digest      Digest   // after the image itself
	contents    []Digest // SHA-384 of the image's pages; nil when made from a FirmwareState
	size        uint32   // of the image, bytes
	sections    []Section
	resetVector uint32 // eip of the vCPUs beside the first
	hashTable   uint32 // GPA of the SEV hash table, 0 where there is none
	takesHashes bool
	svsm        *svsmImage // in front of the firmware; nil where there is none
	problems    []Problem  // those with which it can be launched
}

// MaxFirmware is the largest firmware image that is measured, in bytes: four
// times Debian's OVMF, and little enough to be read whole.
const MaxFirmware = 16 << 20

// The image is a multiple of 64 KiB, which QEMU wants for -bios
// (hw/i386/x86-common.c, x86_bios_rom_init), and ends at 4 GiB.
const (
	firmwareUnit = 64 << 10
	fourGiB      = 1 << 32
)

// ParseFirmware reads an OVMF image, as given to QEMU's -bios, and hashes it.
// It refuses an image with which QEMU would not launch an SNP guest, with a
// *FirmwareError that names everything that is wrong. The image is not kept.
func ParseFirmware(image []byte) (*Firmware, error) {
	p := parseFirmware(image)
	if err := p.err(); err != nil {
		return nil, err
	}
	contents := hashPages(image)
	return &Firmware{
		digest:      Digest{}.image(fourGiB-uint64(len(image)), contents),
		contents:    contents,
		size:        uint32(len(image)),
		sections:    p.sections,
		resetVector: p.resetVector,
		hashTable:   p.hashTable,
		takesHashes: p.takesHashes,
		problems:    p.problems,
	}, nil
}

// HashTable returns where in guest memory the SEV hash table stands. It reports
// false for a firmware that cannot be launched with kernel hashes.
func (f *Firmware) HashTable() (gpa uint32, ok bool) {
	return f.hashTable, f.takesHashes
}

// Digest returns the launch digest after the firmware's image, before its
// metadata sections.
func (f *Firmware) Digest() Digest { return f.digest }

// Problems returns what is wrong with a firmware that can be launched all the
// same: it has no place for kernel hashes, or a section of an unknown type.
func (f *Firmware) Problems() []Problem { return append([]Problem(nil), f.problems...) }

// whyNoHashes says why the firmware takes no kernel hashes.
func (f *Firmware) whyNoHashes() string {
	for _, p := range f.problems {
		if p.Effect == EffectNoHashes {
			return p.What
		}
	}
	return "a hash table and a page for it"
}

// parsed is what an image says, and what is wrong with it.
type parsed struct {
	findings
	table       table
	metadata    span // of the SEV metadata's head and sections
	sections    []Section
	resetVector uint32
	hashTable   uint32
	takesHashes bool
}

// parseFirmware goes on after a problem wherever there is more to find.
func parseFirmware(image []byte) *parsed {
	p := &parsed{}
	if p.size(uint64(len(image))); len(image) == 0 || len(image) > MaxFirmware {
		return p
	}
	if p.table = p.readTable(image); p.table == nil {
		return p
	}
	p.resetVector = p.resetBlock(p.table)
	p.metadata, p.sections = p.readMetadata(image, p.table)
	p.checkSections(p.sections, p.metadata, fourGiB-uint64(len(image)))
	p.hashTable = p.hashArea(p.table)
	if p.sections != nil {
		p.takesHashes = p.checkHashTable(p.sections, p.metadata, p.hashTable)
	}
	return p
}

// hashPages returns the SHA-384 of the image's pages. They do not depend on each
// other and are computed on all processors.
func hashPages(image []byte) []Digest {
	pages := len(image) / PageSize
	contents := make([]Digest, pages)
	workers := min(runtime.GOMAXPROCS(0), pages)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < pages; i += workers {
				contents[i] = hashPage((*[PageSize]byte)(image[i*PageSize:]))
			}
		})
	}
	wg.Wait()
	return contents
}

// image adds an image's pages, of which the first stands at gpa.
func (d Digest) image(gpa uint64, contents []Digest) Digest {
	for i, c := range contents {
		d = d.Extend(PageInfo{Contents: c, Type: PageNormal, GPA: gpa + uint64(i)*PageSize})
	}
	return d
}
