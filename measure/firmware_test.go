package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// image is a firmware made for a test: random-looking bytes, and OVMF's tables.
type image struct {
	size     int
	reset    []byte // entries of the GUID table; nil leaves one out
	hashArea []byte
	metadata []byte // the metadata itself; its entry is made to fit
	entry    []byte // the metadata's entry, where not made to fit
	extra    []tableEntry
	beneath  []byte // what stands before the entries
	footer   guid

	fromEnd     int    // where the metadata stands; 0 for metadataFromEnd
	tableLength []byte // where not made to fit
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

func u16(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }

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
		if m.fromEnd == 0 {
			m.fromEnd = metadataFromEnd
		}
		copy(b[len(b)-m.fromEnd:], m.metadata)
		if m.entry == nil {
			m.entry = u32(uint32(m.fromEnd))
		}
	}
	entries := append([]tableEntry{{guidReset, m.reset}, {guidHashArea, m.hashArea}, {guidMetadata, m.entry}}, m.extra...)
	table := append([]byte{}, m.beneath...)
	for _, e := range entries {
		if e.data == nil {
			continue
		}
		table = append(table, e.data...)
		table = binary.LittleEndian.AppendUint16(table, uint16(len(e.data)+18))
		table = append(table, e.id[:]...)
	}
	if m.tableLength == nil {
		m.tableLength = u16(uint16(len(table) + 18))
	}
	table = append(append(table, m.tableLength...), m.footer[:]...)
	copy(b[len(b)-32-len(table):], table)
	return b
}

// problemsOf returns the codes of an image's problems, and ParseFirmware's error.
func problemsOf(t *testing.T, image []byte) ([]ProblemCode, error) {
	t.Helper()
	fw, err := ParseFirmware(image)
	var problems []Problem
	if err == nil {
		problems = fw.Problems()
	} else {
		if fw != nil {
			t.Error("a value beside the error")
		}
		refused, ok := errors.AsType[*FirmwareError](err)
		if !ok {
			t.Fatalf("error %v is not a FirmwareError", err)
		}
		problems = refused.Problems
	}
	var codes []ProblemCode
	for _, p := range problems {
		codes = append(codes, p.Code)
		if text := p.Error(); err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("error %q without %q", err, text)
		}
	}
	return codes, err
}

// filler takes the place of the sections that every firmware should have.
func filler(s ...Section) []byte {
	return metadata(append(s, Section{0x70d000, 0x1000, SectionSecrets}, Section{0x70e000, 0x1000, SectionCPUID})...)
}

func TestFirmwareProblems(t *testing.T) {
	with := func(change func(*image)) []byte {
		m := amdSev()
		change(&m)
		return m.build()
	}
	sections := func(s ...Section) []byte {
		return with(func(m *image) { m.metadata, m.hashArea = filler(s...), nil })
	}
	noHashes := []ProblemCode{ProblemNoHashTable, ProblemNoHashSection}
	for _, tt := range []struct {
		name  string
		image []byte
		codes []ProblemCode
		text  string // of the error; empty where the firmware is accepted
	}{
		{"none", amdSev().build(), nil, ""},
		{"empty", nil, []ProblemCode{ProblemSize}, "0 bytes, want a multiple of 65536"},
		{"cut off", amdSev().build()[28<<10:], []ProblemCode{ProblemSize}, "102400 bytes, want a multiple of 65536"},
		{"a few bytes", make([]byte, 100), []ProblemCode{ProblemSize, ProblemNoTable}, "100 bytes, too few for an OVMF table"},
		{"too large", make([]byte, MaxFirmware+firmwareUnit), []ProblemCode{ProblemTooLarge}, "16842752 bytes, more than 16777216"},
		{"no table", make([]byte, 64<<10), []ProblemCode{ProblemNoTable}, "[0xffd0:0xffe0]: no OVMF table"},
		{"table's length", with(func(m *image) { m.tableLength = u16(17) }), []ProblemCode{ProblemTableLength, ProblemNoResetVector, ProblemNoMetadata, ProblemNoHashTable}, "[0x1ffce:0x1ffd0]: length 17 of the OVMF table is not between 18 and 131040"},
		{"table too long", with(func(m *image) { m.size, m.metadata, m.tableLength = 64<<10, nil, u16(0xffff) }), []ProblemCode{ProblemTableLength, ProblemNoResetVector, ProblemNoMetadata, ProblemNoHashTable}, "length 65535 of the OVMF table"},
		{"an entry's length, behind all that count", with(func(m *image) { m.beneath = append(u16(99), guidTDX[:]...) }), []ProblemCode{ProblemTableEntry}, ""},
		{"an entry's length, too small", with(func(m *image) { m.beneath = append(u16(17), guidTDX[:]...) }), []ProblemCode{ProblemTableEntry}, ""},
		{"stray bytes", with(func(m *image) { m.beneath = make([]byte, 5) }), []ProblemCode{ProblemTableEntry}, ""},
		{"no reset vector", with(func(m *image) { m.reset = nil }), []ProblemCode{ProblemNoResetVector}, "no entry 00f771de-1a7e-4fcb-890e-68c77e2fb44e (AP reset vector)"},
		{"short reset vector", with(func(m *image) { m.reset = make([]byte, 3) }), []ProblemCode{ProblemResetVectorSize}, "(AP reset vector): 3 bytes, want 4"},
		{"zero reset vector", with(func(m *image) { m.reset = u32(0) }), []ProblemCode{ProblemResetVectorZero}, "[0x1ff88:0x1ff8c]: entry 00f771de-1a7e-4fcb-890e-68c77e2fb44e (AP reset vector): zero"},
		{"no metadata", with(func(m *image) { m.metadata = nil }), []ProblemCode{ProblemNoMetadata}, "no entry dc886566-984a-4798-a75e-5585a7bf67cc (SEV metadata)"},
		{"a first firmware for SEV-ES", sevESOnly(), []ProblemCode{ProblemNoMetadata, ProblemNoHashTable}, "no entry dc886566"},
		{"metadata's entry too short", with(func(m *image) { m.entry = make([]byte, 3) }), []ProblemCode{ProblemMetadataOffset}, "(SEV metadata): 3 bytes, want 4"},
		{"metadata out of the image", with(func(m *image) { m.entry = u32(1 << 20) }), []ProblemCode{ProblemMetadataOffset}, "offset 0x100000 from the end of 0x20000"},
		{"metadata at the very end", with(func(m *image) { m.entry = u32(4) }), []ProblemCode{ProblemMetadataOffset}, "offset 0x4 from the end"},
		{"metadata's signature", with(func(m *image) { m.metadata[0]++ }), []ProblemCode{ProblemMetadataSignature}, `[0x1f000:0x1f004]: SEV metadata: signature "BSEV"`},
		{"metadata's version", with(func(m *image) { m.metadata[8] = 2 }), []ProblemCode{ProblemMetadataVersion}, "[0x1f008:0x1f00c]: SEV metadata: version 2"},
		{"metadata's length, too small", with(func(m *image) { m.metadata[4] = 15 }), []ProblemCode{ProblemMetadataLength}, "[0x1f004:0x1f008]: SEV metadata: length 15 is not between 16 and 4096"},
		{"metadata's length, too large", with(func(m *image) { m.metadata[6] = 1 }), []ProblemCode{ProblemMetadataLength}, "length 65636 is not between 16 and 4096"},
		{"metadata's length, as QEMU bounds it", with(func(m *image) { m.size, m.fromEnd = 64<<10, 64<<10-64 }), []ProblemCode{ProblemMetadataLength}, "length 100 is not between 16 and 64"},
		{"metadata's count", with(func(m *image) { m.metadata[4]-- }), []ProblemCode{ProblemMetadataCount}, "[0x1f00c:0x1f010]: SEV metadata: 7 sections in 99 bytes, more than 6"},
		{"too many sections", with(func(m *image) { m.fromEnd, m.metadata = 0x8000, metadata(make([]Section, 257)...) }), []ProblemCode{ProblemMetadataCount}, "257 sections in 3100 bytes, more than 256"},
		{"empty section", sections(Section{0x1000, 0, SectionMemory}), append([]ProblemCode{ProblemSectionEmpty}, noHashes...), "[0x1f010:0x1f01c]: SEV metadata: section 0: empty"},
		{"half a page", sections(Section{0x1000, 0x800, SectionMemory}), append([]ProblemCode{ProblemSectionUnaligned}, noHashes...), "section 0: 0x1000+0x800 is not made of pages"},
		{"unaligned", sections(Section{0x1800, 0x1000, SectionMemory}), append([]ProblemCode{ProblemSectionUnaligned}, noHashes...), "section 0: 0x1800+0x1000 is not made of pages"},
		{"overlap", sections(Section{0x1000, 0x2000, SectionMemory}, Section{0x2000, 0x1000, SectionCAA}), append([]ProblemCode{ProblemSectionOverlap}, noHashes...), "[0x1f01c:0x1f028]: SEV metadata: section 1: 0x2000+0x1000 overlaps section 0"},
		{"over the firmware", sections(Section{0xfffdf000, 0x2000, SectionMemory}), append([]ProblemCode{ProblemSectionOverImage}, noHashes...), "section 0: 0xfffdf000+0x2000 reaches into the firmware at 0xfffe0000"},
		{"over 4 GiB", sections(Section{0xfffff000, 0xfffff000, SectionMemory}), append([]ProblemCode{ProblemSectionOverImage, ProblemSectionsTooLarge}, noHashes...), "section 0: 0xfffff000+0xfffff000 reaches into the firmware"},
		{"too much", sections(Section{0x10000000, 0x20000000, SectionMemory}), append([]ProblemCode{ProblemSectionsTooLarge}, noHashes...), "more than 268435456"},
		{"unknown type", sections(Section{0x1000, 0x1000, 9}), append([]ProblemCode{ProblemSectionType}, noHashes...), ""},
		{"no sections", with(func(m *image) { m.metadata = metadata() }), []ProblemCode{ProblemNoSecrets, ProblemNoCPUID, ProblemNoHashSection}, ""},
		{"no hash area", with(func(m *image) { m.hashArea = nil }), []ProblemCode{ProblemNoHashTable}, ""},
		{"an empty hash area", with(func(m *image) { m.hashArea = u32(0, 0) }), []ProblemCode{ProblemNoHashTable}, ""},
		{"hash area at 0", with(func(m *image) { m.hashArea = u32(0, 0x400) }), []ProblemCode{ProblemHashTableArea}, ""},
		{"hash area too small", with(func(m *image) { m.hashArea = u32(0x810c00, 175) }), []ProblemCode{ProblemHashTableArea}, ""},
		{"hash area's entry too short", with(func(m *image) { m.hashArea = make([]byte, 7) }), []ProblemCode{ProblemHashTableArea}, ""},
		{"hash area beyond the page", with(func(m *image) { m.hashArea = u32(0x810f80, 0x400) }), []ProblemCode{ProblemHashTableElsewhere}, ""},
		{"hash area elsewhere", with(func(m *image) { m.hashArea = u32(0x910c00, 0x400) }), []ProblemCode{ProblemHashTableElsewhere}, ""},
		{"hash area in the second page", with(func(m *image) {
			m.metadata, m.hashArea = filler(Section{0x910000, 0x2000, SectionKernelHashes}), u32(0x911000, 0x400)
		}), []ProblemCode{ProblemHashTableElsewhere}, ""},
		{"hash area in the first page of two", with(func(m *image) {
			m.metadata, m.hashArea = filler(Section{0x910000, 0x2000, SectionKernelHashes}), u32(0x910c00, 0x400)
		}), nil, ""},
		{"no hash section", with(func(m *image) { m.metadata = filler() }), []ProblemCode{ProblemNoHashSection}, ""},
		{"two hash sections", with(func(m *image) {
			m.metadata = filler(Section{0x810000, 0x1000, SectionKernelHashes}, Section{0x910000, 0x1000, SectionKernelHashes})
		}), []ProblemCode{ProblemHashSectionTwice}, ""},
		{"several", with(func(m *image) {
			m.size += 4096
			m.reset, m.metadata = u32(0), filler(Section{0x1000, 0, 9}, Section{0x1800, 0x1000, 1})
		}), []ProblemCode{ProblemSize, ProblemResetVectorZero, ProblemSectionEmpty, ProblemSectionType, ProblemSectionUnaligned, ProblemNoHashSection}, "firmware: 6 problems\n  135168 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			codes, err := problemsOf(t, tt.image)
			if diff := cmp.Diff(tt.codes, codes); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			switch {
			case tt.text == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.text != "" && (err == nil || !strings.Contains(err.Error(), tt.text)):
				t.Errorf("error %v, want one with %q", err, tt.text)
			}
		})
	}
}

// sevESOnly has no table, but the reset vector's entry in its footer's place.
func sevESOnly() []byte {
	b := make([]byte, 64<<10)
	entry := append(append(u32(0x80b004), u16(22)...), guidReset[:]...)
	copy(b[len(b)-32-len(entry):], entry)
	return b
}

func TestResetVectorOfFirstFirmwares(t *testing.T) {
	entries, err := parseTable(sevESOnly())
	if err != nil {
		t.Fatal(err)
	}
	if eip, err := entries.resetVector(); eip != 0x80b004 || err != nil {
		t.Errorf("reset vector %#x, %v", eip, err)
	}
}

// What QEMU does not know it zeroes.
func TestUnknownSectionIsZero(t *testing.T) {
	m := amdSev()
	m.metadata = filler(Section{0x1000, 0x2000, 9})
	fw := mustParse(t, m.build())
	want := fw.Digest().
		Extend(PageInfo{Type: PageZero, GPA: 0x1000}).
		Extend(PageInfo{Type: PageZero, GPA: 0x2000}).
		Extend(PageInfo{Type: PageSecrets, GPA: 0x70d000}).
		Extend(PageInfo{Type: PageCPUID, GPA: 0x70e000})
	if got, err := fw.Prefix(nil, QEMU); got != want || err != nil {
		t.Errorf("digest %v, %v, want %v", got, err, want)
	}
}

func TestSectionTypeText(t *testing.T) {
	for _, s := range []SectionType{0, SectionMemory, SectionSecrets, SectionCPUID, SectionCAA, 9, SectionKernelHashes, 0xffffffff} {
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got SectionType
		if err := got.UnmarshalText(text); err != nil || got != s {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, s := range []string{"", "9", "0x1", "0x09", "0X9", "0x100000000", "SNP_SEC_MEM ", "snp_sec_mem"} {
		if got, err := ParseSectionType(s); err == nil || got != 0 {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestFirmwareState(t *testing.T) {
	noPlace := amdSev()
	noPlace.hashArea, noPlace.metadata = nil, filler(Section{0x1000, 0x1000, 9})
	elsewhere := amdSev()
	elsewhere.hashArea = u32(0x910c00, 0x400)
	for name, m := range map[string]image{"AmdSev": amdSev(), "no place": noPlace, "elsewhere": elsewhere} {
		t.Run(name, func(t *testing.T) {
			fw := mustParse(t, m.build())
			b, err := json.Marshal(fw.State())
			if err != nil {
				t.Fatal(err)
			}
			var state FirmwareState
			if err := json.Unmarshal(b, &state); err != nil {
				t.Fatal(err)
			}
			again, err := state.Firmware()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fw.State(), again.State()); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
			shape := shapeOf(t, 3, "EPYC-v4", SNPActive)
			for _, hashes := range []*KernelHashes{nil, {}} {
				want, wantErr := Measure(fw, hashes, shape)
				got, gotErr := Measure(again, hashes, shape)
				if got != want || (wantErr == nil) != (gotErr == nil) {
					t.Errorf("from the state %v, %v; from the image %v, %v", got, gotErr, want, wantErr)
				}
			}
		})
	}
}

func TestFirmwareStateRefuses(t *testing.T) {
	good := mustParse(t, amdSev().build()).State()
	for _, tt := range []struct {
		name   string
		change func(*FirmwareState)
		text   string
	}{
		{"size", func(s *FirmwareState) { s.Size = 1000 }, "1000 bytes, want a multiple of 65536"},
		{"too large", func(s *FirmwareState) { s.Size = 0xffff0000 }, "4294901760 bytes, more than 16777216"},
		{"reset vector", func(s *FirmwareState) { s.ResetVector = 0 }, "reset vector: zero"},
		{"sections", func(s *FirmwareState) { s.Sections = make([]Section, 257) }, "257 sections, more than 256"},
		{"section", func(s *FirmwareState) { s.Sections = []Section{{0x1000, 0, SectionMemory}} }, "section 0: empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := good
			tt.change(&s)
			fw, err := s.Firmware()
			if err == nil || !strings.Contains(err.Error(), tt.text) || fw != nil {
				t.Errorf("%v, error %v, want one with %q", fw, err, tt.text)
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
	f.Add(sevESOnly())
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
		again, err := fw.State().Firmware()
		if err != nil {
			t.Fatalf("its state is refused: %v", err)
		}
		if got, err := Measure(again, nil, shape); got != without || err != nil {
			t.Fatalf("from the state %v, %v, from the image %v", got, err, without)
		}
	})
}

func FuzzFirmwareState(f *testing.F) {
	good, err := json.Marshal(FirmwareState{Size: 64 << 10, ResetVector: 1, Sections: []Section{{0x1000, 0x1000, SectionKernelHashes}}, HashTable: 0x1c00})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		var state FirmwareState
		if json.Unmarshal(b, &state) != nil {
			return
		}
		fw, err := state.Firmware()
		if err != nil {
			if fw != nil {
				t.Fatal("a value beside the error")
			}
			return
		}
		again, err := fw.State().Firmware()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fw.State(), again.State()); diff != "" {
			t.Fatal(diff)
		}
	})
}
