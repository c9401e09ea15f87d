package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func inspect(t *testing.T, image []byte) Inspection {
	t.Helper()
	in, err := InspectFirmware(image)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestInspectFirmware(t *testing.T) {
	m := amdSev()
	m.extra = []tableEntry{{guidHashArea, u32(0x810d00, 0x300)}, {mustGUID("00112233-4455-6677-8899-aabbccddeeff"), []byte{1, 2}}}
	m.metadata = filler(Section{0x810000, 0x1000, SectionKernelHashes}, Section{0x910000, 0x2000, 9})
	image := m.build()
	in := inspect(t, image)
	want := Inspection{
		Size: 128 << 10, SHA256: sha256.Sum256(image), ResetVector: 0x80b004, HashTable: 0x810d00,
		Table: []TableEntry{
			{GUID: "00112233-4455-6677-8899-aabbccddeeff", Value: "0102", Start: 0x1ffba, End: 0x1ffbc},
			{GUID: "7255371f-3a3b-4b04-927b-1da6efa8d454", Name: "SEV hash table", Value: "0x810d00+0x300", Start: 0x1ffa0, End: 0x1ffa8},
			{GUID: "dc886566-984a-4798-a75e-5585a7bf67cc", Name: "SEV metadata", Value: "0x1000 from the end", Start: 0x1ff8a, End: 0x1ff8e},
			{GUID: "7255371f-3a3b-4b04-927b-1da6efa8d454", Name: "SEV hash table", Value: "0x810c00+0x400", Start: 0x1ff70, End: 0x1ff78, Ignored: true},
			{GUID: "00f771de-1a7e-4fcb-890e-68c77e2fb44e", Name: "AP reset vector", Value: "0x80b004", Start: 0x1ff5a, End: 0x1ff5e},
		},
		Sections: []PageRange{
			{Section{0x810000, 0x1000, SectionKernelHashes}, PageNormal},
			{Section{0x910000, 0x2000, 9}, PageZero},
			{Section{0x70d000, 0x1000, SectionSecrets}, PageSecrets},
			{Section{0x70e000, 0x1000, SectionCPUID}, PageCPUID},
		},
		Abilities: Abilities{SNP: true, SEVES: true, SEV: true, KernelHashes: true, KernelHashesSEV: true},
		Problems: []Problem{{
			Code: ProblemSectionType, Effect: EffectNotice, What: "SEV metadata: section 1: unknown type 0x9", Start: 0x1f01c, End: 0x1f028,
			Consequence: "QEMU zeroes the section, whatever the firmware expects: it is measured so",
		}},
	}
	if diff := cmp.Diff(want, in); diff != "" {
		t.Errorf("inspection (-want +got):\n%s", diff)
	}
	if !in.Launchable() {
		t.Error("not launchable")
	}
}

func TestAbilities(t *testing.T) {
	with := func(change func(*image)) []byte {
		m := amdSev()
		change(&m)
		return m.build()
	}
	whole := Abilities{SNP: true, SEVES: true, SEV: true, KernelHashes: true, KernelHashesSEV: true, UnderSVSM: true}
	and := func(change func(*Abilities)) Abilities {
		a := whole
		change(&a)
		return a
	}
	tdx := with(func(m *image) { m.extra = []tableEntry{{guidTDX, u32(0x800)}} })
	copy(tdx[len(tdx)-0x800:], "TDVF")
	for _, tt := range []struct {
		name  string
		image []byte
		want  Abilities
	}{
		{"AmdSev", amdSev().build(), whole},
		{"launch secret", with(func(m *image) { m.extra = []tableEntry{{guidSecret, u32(0x810000, 0xc00)}} }), and(func(a *Abilities) { a.LaunchSecret = true })},
		{"an empty place for a secret", with(func(m *image) { m.extra = []tableEntry{{guidSecret, u32(0, 0)}} }), whole},
		{"TDX", tdx, and(func(a *Abilities) { a.TDX = true })},
		{"an entry of TDX, and nothing there", with(func(m *image) { m.extra = []tableEntry{{guidTDX, u32(0x800)}} }), whole},
		{"an entry of TDX, out of the image", with(func(m *image) { m.extra = []tableEntry{{guidTDX, u32(0x80000000)}} }), whole},
		{"IGVM", with(func(m *image) { m.extra = []tableEntry{{guidIGVM, u32(0x800)}} }), and(func(a *Abilities) { a.IGVM = true })},
		{"an SVSM", with(func(m *image) { m.extra = []tableEntry{{guidSVSMInfo, u32(0x800)}} }), and(func(a *Abilities) { a.SVSM = true })},
		{"no page for the hashes", with(func(m *image) { m.metadata = filler() }), Abilities{SNP: true, SEVES: true, SEV: true, KernelHashesSEV: true}},
		{"a first firmware for SEV-ES", sevESOnly(), Abilities{SEVES: true, SEV: true}},
		{"nothing", with(func(m *image) { m.reset, m.metadata, m.hashArea = nil, nil, nil }), Abilities{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, inspect(t, tt.image).Abilities); diff != "" {
				t.Errorf("abilities (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInspectNoFirmware(t *testing.T) {
	for name, image := range map[string][]byte{
		"empty": nil, "zeros": make([]byte, 128<<10), "small": make([]byte, 512), "large": make([]byte, MaxFirmware+1),
	} {
		in, err := InspectFirmware(image)
		if _, ok := errors.AsType[*FirmwareError](err); !ok {
			t.Errorf("%s: error %v is not a FirmwareError", name, err)
		}
		if diff := cmp.Diff(Inspection{}, in); diff != "" {
			t.Errorf("%s: a value beside the error: %s", name, diff)
		}
	}
}

// What ParseFirmware takes is launchable, and nothing else; each code has a
// consequence, and a place in the documentation.
func TestProblemKinds(t *testing.T) {
	doc, err := os.ReadFile("../docs/firmware.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[ProblemCode]bool{}
	for _, k := range problemKinds() {
		if seen[k.code] {
			t.Errorf("%s: twice", k.code)
		}
		seen[k.code] = true
		if _, err := ParseEffect(k.effect.String()); err != nil || k.consequence == "" {
			t.Errorf("%s: effect %v, consequence %q", k.code, k.effect, k.consequence)
		}
		if !bytes.Contains(doc, []byte("| `"+string(k.code)+"` | "+k.effect.String()+" |")) {
			t.Errorf("docs/firmware.md does not list `%s` | %v", k.code, k.effect)
		}
	}
	if rows := strings.Count(string(doc), "\n| `"); rows < len(seen) {
		t.Errorf("%d rows in docs/firmware.md, %d codes", rows, len(seen))
	}
}

func TestEffectText(t *testing.T) {
	for _, e := range []Effect{EffectRefused, EffectNoHashes, EffectNotice} {
		text, err := e.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Effect
		if err := got.UnmarshalText(text); err != nil || got != e {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if text, err := json.Marshal(Effect(9)); err == nil {
		t.Errorf("effect 9 is %s", text)
	}
	var e Effect
	if err := e.UnmarshalText([]byte("Refused")); err == nil || e != 0 {
		t.Errorf("%v, %v", e, err)
	}
}

func FuzzInspectFirmware(f *testing.F) {
	whole := amdSev().build()
	f.Add(whole[len(whole)-64<<10:])
	f.Add(sevESOnly())
	f.Fuzz(func(t *testing.T, tail []byte) {
		image := make([]byte, 64<<10)
		copy(image[max(0, len(image)-len(tail)):], tail)
		in, err := InspectFirmware(image)
		if err != nil {
			if diff := cmp.Diff(Inspection{}, in); diff != "" {
				t.Fatalf("a value beside the error: %s", diff)
			}
			return
		}
		_, err = ParseFirmware(image)
		if in.Launchable() != (err == nil) {
			t.Fatalf("launchable %v, parsing it: %v", in.Launchable(), err)
		}
		for _, p := range in.Problems {
			if p.Start > p.End || int(p.End) > len(image) {
				t.Fatalf("%v is not in the image", p)
			}
		}
	})
}
