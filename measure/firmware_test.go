package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"
)

// image is a firmware made for a test: random-looking bytes, and OVMF's tables.
type image struct {
	size     int
	reset    []byte // entries of the GUID table; nil leaves one out
	hashArea []byte
	metadata []byte // the metadata itself; its entry is made to fit
	entry    []byte // the metadata's entry, where not made to fit
	extra    []tableEntry
	footer   guid
}

type tableEntry struct {
	id   guid
	data []byte
}

func u32(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// metadata encodes SEV metadata of the given sections.
func metadata(sections ...Section) []byte {
	b := append([]byte("ASEV"), u32(uint32(16+12*len(sections)), 1, uint32(len(sections)))...)
	for _, s := range sections {
		b = append(b, u32(s.GPA, s.Size, uint32(s.Type))...)
	}
	return b
}

// amdSev is laid out as edk2's AmdSev platform lays itself out.
func amdSev() image {
	return image{
		size:     128 << 10,
		reset:    u32(0x80b004),
		hashArea: u32(0x810c00, 0x400),
		metadata: metadata(
			Section{0x800000, 0x9000, SectionMemory},
			Section{0x80a000, 0x3000, SectionMemory},
			Section{0x80d000, 0x1000, SectionSecrets},
			Section{0x80e000, 0x1000, SectionCPUID},
			Section{0x80f000, 0x1000, SectionCAA},
			Section{0x811000, 0x1f000, SectionMemory},
			Section{0x810000, 0x1000, SectionKernelHashes},
		),
		footer: guidFooter,
	}
}

const metadataFromEnd = 0x1000

func (m image) build() []byte {
	var b []byte
	for block := uint32(0); len(b) < m.size; block++ {
		sum := sha256.Sum256(u32(block))
		b = append(b, sum[:]...)
	}
	b = b[:m.size]
	if m.metadata != nil {
		copy(b[len(b)-metadataFromEnd:], m.metadata)
		if m.entry == nil {
			m.entry = u32(metadataFromEnd)
		}
	}
	entries := append([]tableEntry{{guidReset, m.reset}, {guidHashArea, m.hashArea}, {guidMetadata, m.entry}}, m.extra...)
	var table []byte
	for _, e := range entries {
		if e.data == nil {
			continue
		}
		table = append(table, e.data...)
		table = binary.LittleEndian.AppendUint16(table, uint16(len(e.data)+18))
		table = append(table, e.id[:]...)
	}
	table = binary.LittleEndian.AppendUint16(table, uint16(len(table)+18))
	table = append(table, m.footer[:]...)
	copy(b[len(b)-32-len(table):], table)
	return b
}

func TestParseFirmwareRefuses(t *testing.T) {
	with := func(change func(*image)) []byte {
		m := amdSev()
		change(&m)
		return m.build()
	}
	sections := func(s ...Section) []byte { return with(func(m *image) { m.metadata = metadata(s...) }) }
	for _, tt := range []struct {
		name  string
		image []byte
		err   string
	}{
		{"empty", nil, "0 bytes, want a multiple of 65536"},
		{"cut off", amdSev().build()[:100<<10], "102400 bytes, want a multiple of 65536"},
		{"no table", make([]byte, 64<<10), "[0xffd0:0xffe0]: no OVMF table"},
		{"no reset vector", with(func(m *image) { m.reset = nil }), "(AP reset vector): 0 bytes, want 4"},
		{"zero reset vector", with(func(m *image) { m.reset = u32(0) }), "(AP reset vector): zero"},
		{"no metadata", with(func(m *image) { m.metadata = nil }), "(SEV metadata): 0 bytes, want 4"},
		{"metadata out of the image", with(func(m *image) { m.entry = u32(1 << 20) }), "offset 0x100000 from the end of 0x20000"},
		{"metadata at the very end", with(func(m *image) { m.entry = u32(4) }), "offset 0x4 from the end"},
		{"metadata's signature", with(func(m *image) { m.metadata[0]++ }), `[0x1f000:0x1f004]: SEV metadata: signature "BSEV"`},
		{"metadata's version", with(func(m *image) { m.metadata[8] = 2 }), "[0x1f008:0x1f00c]: SEV metadata: version 2"},
		{"metadata's length", with(func(m *image) { m.metadata[4]-- }), "[0x1f004:0x1f008]: SEV metadata: length 99 with 7 sections"},
		{"metadata's count", with(func(m *image) { m.metadata[14] = 0xff }), "[0x1f00c:0x1f010]: SEV metadata: 16711687 sections"},
		{"empty section", sections(Section{0x1000, 0, SectionMemory}), "section 0: empty"},
		{"half a page", sections(Section{0x1000, 0x800, SectionMemory}), "section 0: 0x1000+0x800 is not made of pages"},
		{"unaligned", sections(Section{0x1800, 0x1000, SectionMemory}), "section 0: 0x1800+0x1000 is not made of pages"},
		{"overlap", sections(Section{0x1000, 0x2000, SectionMemory}, Section{0x2000, 0x1000, SectionCPUID}), "section 1: 0x2000+0x1000 overlaps section 0"},
		{"over the firmware", sections(Section{0xfffff000, 0x1000, SectionMemory}), "section 0: 0xfffff000+0x1000 reaches into the firmware at 0xfffe0000"},
		{"too much", sections(Section{0, 0x20000000, SectionMemory}), "more than 268435456 bytes"},
		{"hash area at 0", with(func(m *image) { m.hashArea = u32(0, 0x400) }), "base 0x0 and size 0x400"},
		{"hash area too small", with(func(m *image) { m.hashArea = u32(0x810c00, 175) }), "base 0x810c00 and size 0xaf"},
		{"hash area beyond the page", with(func(m *image) { m.hashArea = u32(0x810f80, 0x400) }), "SEV hash table at 0x810f80 is not within the measured page at 0x810000"},
		{"hash area elsewhere", with(func(m *image) { m.hashArea = u32(0x910c00, 0x400) }), "SEV hash table at 0x910c00 is not within"},
		{"two hash sections", with(func(m *image) {
			m.metadata = metadata(Section{0x810000, 0x1000, SectionKernelHashes}, Section{0x910000, 0x1000, SectionKernelHashes})
		}), "kernel hashes: stands twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fw, err := ParseFirmware(tt.image)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
			if fw != nil {
				t.Error("a value beside the error")
			}
		})
	}
}

// Of two entries with one GUID QEMU takes the one nearest the footer.
func TestNearestEntryCounts(t *testing.T) {
	m := amdSev()
	m.extra = []tableEntry{{guidHashArea, u32(0x810d00, 0x300)}}
	fw, err := ParseFirmware(m.build())
	if err != nil {
		t.Fatal(err)
	}
	if gpa, ok := fw.HashTable(); gpa != 0x810d00 || !ok {
		t.Errorf("hash table at %#x, %v, want 0x810d00", gpa, ok)
	}
}

func FuzzParseFirmware(f *testing.F) {
	whole := amdSev().build()
	f.Add(whole[len(whole)-64<<10:])
	f.Add(make([]byte, 64<<10))
	shape := Shape{VMM: QEMU, VCPUs: 2, CPU: SignatureCPU(0x800f12), GuestFeatures: SNPActive}
	f.Fuzz(func(t *testing.T, tail []byte) {
		// The tables stand at the end: the fuzzer's bytes are the end of 64 KiB.
		image := make([]byte, 64<<10)
		copy(image[max(0, len(image)-len(tail)):], tail)
		fw, err := ParseFirmware(image)
		if err != nil {
			if fw != nil {
				t.Fatal("a value beside the error")
			}
			return
		}
		without, err := Measure(fw, nil, shape)
		if err != nil {
			t.Fatalf("accepted firmware cannot be measured: %v", err)
		}
		with, err := Measure(fw, &KernelHashes{}, shape)
		if _, ok := fw.HashTable(); ok != (err == nil) {
			t.Fatalf("hash table %v, measuring with hashes: %v", ok, err)
		}
		if err == nil && with == without {
			t.Fatal("kernel hashes do not change the digest")
		}
	})
}
