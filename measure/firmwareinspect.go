package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Inspection is what a firmware image says about itself. It does not say
// whether the firmware does what it says.
type Inspection struct {
	Size        uint32       `json:"size"` // bytes
	SHA256      Hash         `json:"sha256"`
	Table       []TableEntry `json:"table"`       // the entry nearest the footer first
	Sections    []PageRange  `json:"sections"`    // as the SEV metadata has them
	ResetVector uint32       `json:"resetVector"` // of the vCPUs beside the first; 0 where there is none
	HashTable   uint32       `json:"hashTable"`   // address of the SEV hash table; 0 where there is none
	Abilities   Abilities    `json:"abilities"`
	Problems    []Problem    `json:"problems"`
}

// PageRange is a section, and what QEMU adds its pages as.
type PageRange struct {
	Section
	PageType PageType `json:"pageType"` // with kernel hashes, where the image takes any
}

// TableEntry is an entry of OVMF's GUID table.
type TableEntry struct {
	GUID  string `json:"guid"`
	Name  string `json:"name,omitempty"` // empty where it is not known
	Value string `json:"value"`          // what it says, or its bytes where it is not known
	// The bytes of the image that are its data, Start up to End.
	Start uint32 `json:"start"`
	End   uint32 `json:"end"`
	// Ignored: one with the same GUID is nearer the footer, and counts.
	Ignored bool `json:"ignored,omitempty"`
}

// Abilities are what the image has tables for.
type Abilities struct {
	SNP             bool `json:"snp"`             // QEMU can launch it with SEV-SNP
	SEVES           bool `json:"sevES"`           // a reset vector, which SEV-ES needs
	SEV             bool `json:"sev"`             // any table for SEV; SEV itself needs none
	KernelHashes    bool `json:"kernelHashes"`    // a measured place for the hash table under SEV-SNP
	KernelHashesSEV bool `json:"kernelHashesSEV"` // a place for the hash table under SEV and SEV-ES
	LaunchSecret    bool `json:"launchSecret"`    // a place for a secret under SEV and SEV-ES
	UnderSVSM       bool `json:"underSVSM"`       // a calling area for an SVSM
	SVSM            bool `json:"svsm"`            // it is an SVSM
	TDX             bool `json:"tdx"`             // metadata for Intel TDX
	IGVM            bool `json:"igvm"`            // metadata for being put into an IGVM file
}

// Launchable reports whether QEMU would launch an SNP guest with the firmware.
func (in Inspection) Launchable() bool { return in.Abilities.SNP }

// InspectFirmware says what an OVMF image is made of and what is wrong with it.
// An image that is none, of more than MaxFirmware bytes or without OVMF's table,
// is a *FirmwareError.
func InspectFirmware(image []byte) (Inspection, error) {
	p := parseFirmware(image)
	if p.table == nil {
		return Inspection{}, p.err()
	}
	in := Inspection{
		Size:        uint32(len(image)),
		SHA256:      sha256.Sum256(image),
		Table:       []TableEntry{},
		Sections:    []PageRange{},
		ResetVector: p.resetVector,
		HashTable:   p.hashTable,
		Problems:    append([]Problem{}, p.problems...),
	}
	seen := map[guid]bool{}
	for _, e := range p.table {
		in.Table = append(in.Table, e.describe(seen[e.id]))
		seen[e.id] = true
	}
	for _, s := range p.sections {
		t := s.Type.pageType()
		if s.Type == SectionKernelHashes && p.takesHashes {
			t = PageNormal
		}
		in.Sections = append(in.Sections, PageRange{s, t})
	}
	in.Abilities = p.abilities(image)
	return in, nil
}

func (p *parsed) abilities(image []byte) Abilities {
	has := func(id guid) bool { _, ok := p.table.find(id); return ok }
	secret, _ := p.table.find(guidSecret)
	caa := false
	for _, s := range p.sections {
		caa = caa || s.Type == SectionCAA
	}
	return Abilities{
		SNP:             p.err() == nil,
		SEVES:           p.resetVector != 0,
		SEV:             has(guidReset) || has(guidMetadata) || has(guidHashArea) || has(guidSecret),
		KernelHashes:    p.takesHashes,
		KernelHashesSEV: p.hashTable != 0,
		LaunchSecret:    len(secret.data) >= 8 && binary.LittleEndian.Uint64(secret.data) != 0,
		UnderSVSM:       caa,
		SVSM:            has(guidSVSMInfo),
		TDX:             p.hasTDX(image),
		IGVM:            has(guidIGVM),
	}
}

// hasTDX looks for the signature of the TDX metadata's descriptor.
// Source: edk2 2025.02, OvmfPkg/ResetVector/X64/IntelTdxMetadata.asm.
func (p *parsed) hasTDX(image []byte) bool {
	e, ok := p.table.find(guidTDX)
	if !ok || len(e.data) < 4 {
		return false
	}
	fromEnd := uint64(binary.LittleEndian.Uint32(e.data))
	if fromEnd < 4 || fromEnd > uint64(len(image)) {
		return false
	}
	return string(image[uint64(len(image))-fromEnd:][:4]) == "TDVF"
}

// describe says what an entry is.
func (e entry) describe(ignored bool) TableEntry {
	d := TableEntry{
		GUID:    e.id.String(),
		Value:   hex.EncodeToString(e.data),
		Start:   uint32(e.at.start),
		End:     uint32(e.at.end),
		Ignored: ignored,
	}
	var format string
	d.Name, format = e.id.kind()
	switch le := binary.LittleEndian; {
	case format == "":
	case len(e.data) == 4:
		d.Value = fmt.Sprintf(format, le.Uint32(e.data))
	case len(e.data) == 8:
		d.Value = fmt.Sprintf(format, le.Uint32(e.data), le.Uint32(e.data[4:]))
	}
	return d
}

// kind returns the name of a known entry, and how its numbers are told.
func (g guid) kind() (name, format string) {
	switch g {
	case guidReset:
		return "AP reset vector", "%#x"
	case guidHashArea:
		return "SEV hash table", "%#x+%#x"
	case guidSecret:
		return "SEV launch secret", "%#x+%#x"
	case guidMetadata:
		return "SEV metadata", "%#x from the end"
	case guidTDX:
		return "TDX metadata", "%#x from the end"
	case guidIGVM:
		return "IGVM metadata", "%#x from the end"
	case guidSVSMInfo:
		return "SVSM info", "entry point at %#x"
	default:
		return "", ""
	}
}
