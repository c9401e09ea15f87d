package measure

import (
	"os"
	"path/filepath"
	"testing"
)

// peerInputs are the files that the peers' vectors are over, by name.
func peerInputs() map[string][]byte {
	amdsev := func(change func(*image)) []byte {
		m := amdSev()
		change(&m)
		return m.build()
	}
	sections := func(s ...Section) func(*image) {
		return func(m *image) { m.metadata, m.hashArea = metadata(s...), nil }
	}
	memory, secrets := Section{0x800000, 0x9000, SectionMemory}, Section{0x80d000, 0x1000, SectionSecrets}
	cpuid, caa := Section{0x80e000, 0x1000, SectionCPUID}, Section{0x80f000, 0x1000, SectionCAA}
	high := Section{0x811000, 0x1f000, SectionMemory}
	return map[string][]byte{
		"kernel": []byte("kernel of the test"),
		"initrd": []byte("initrd of the test"),
		"amdsev": amdSev().build(),
		// As edk2's other platforms: no place for kernel hashes.
		"generic": amdsev(sections(memory, secrets, cpuid, caa, high)),
		"early":   amdsev(sections(high, cpuid, memory, secrets)), // before there was a CAA
		// 2 MiB, as the images before 2021 were.
		"large": amdsev(func(m *image) { m.size = 2 << 20 }),
		"svsm": image{
			size:     76 << 10,
			metadata: metadata(Section{0x806000, 0x1000, SectionMemory}, secrets, cpuid),
			extra:    []tableEntry{{guidSVSMInfo, u32(0x1040)}},
			footer:   guidFooter,
		}.build(),

		// Of which the peers make something else.
		"reset-twice": amdsev(func(m *image) {
			sections(memory, secrets, cpuid)(m)
			m.extra = []tableEntry{{guidReset, u32(0x80c004)}}
		}),
		"wide-pages": amdsev(sections(memory,
			Section{0x80d000, 0x2000, SectionSecrets}, Section{0x810000, 0x3000, SectionCPUID})),
		"type-9":     amdsev(sections(memory, secrets, cpuid, Section{0x80f000, 0x1000, 9})),
		"type-0x102": amdsev(sections(memory, secrets, cpuid, Section{0x80f000, 0x1000, 0x102})),
		"reset-zero": amdsev(func(m *image) {
			sections(memory, secrets, cpuid)(m)
			m.reset = u32(0)
		}),
		"overlap":     amdsev(sections(memory, secrets, cpuid, Section{0x80d000, 0x1000, SectionCAA})),
		"empty":       amdsev(sections(memory, secrets, cpuid, Section{0x810000, 0, SectionMemory})),
		"hashes-away": amdsev(func(m *image) { m.hashArea = u32(0x910c00, 0x400) }),
		"hashes-wide": amdsev(func(m *image) {
			m.metadata = metadata(memory, secrets, cpuid, Section{0x810000, 0x2000, SectionKernelHashes})
		}),
		"hashes-twice": amdsev(func(m *image) {
			m.metadata = metadata(memory, secrets, cpuid, Section{0x810000, 0x1000, SectionKernelHashes}, Section{0x820000, 0x1000, SectionKernelHashes})
		}),
		"code":   amdSev().build()[4<<10:], // a multiple of 4 KiB, as OVMF_CODE is
		"no-sev": make([]byte, 128<<10),
	}
}

// TestPeerInputs writes the inputs into the folder that KATTEST_PEER_INPUTS
// names, for whoever wants to run the vectors' commands.
func TestPeerInputs(t *testing.T) {
	dir := os.Getenv("KATTEST_PEER_INPUTS")
	if dir == "" {
		t.Skip("KATTEST_PEER_INPUTS names no folder to write the peers' inputs to")
	}
	for name, content := range peerInputs() {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
