package verifier

import (
	"fmt"
	"strconv"
	"strings"
)

// TCBVersion is a TCB_VERSION as it stands in a report. Its layout depends on
// the product, see Decode.
type TCBVersion [8]byte

// TCB holds the security patch levels of a processor's firmware. Levels are to
// be compared one by one, never as one number.
type TCB struct {
	FMC        byte `json:"fmc"` // Turin and later, zero before
	Bootloader byte `json:"bootloader"`
	TEE        byte `json:"tee"`
	SNP        byte `json:"snp"`
	Microcode  byte `json:"microcode"`
}

// Decode reads the levels for a product.
//
// TCB_VERSION. Source: AMD 56860 rev 1.58, section 2.2, tables 3 and 4.
//
//	before Turin             Turin
//	offset  size  field      offset  size  field
//	0x0     1     BOOTLOADER 0x0     1     FMC
//	0x1     1     TEE        0x1     1     BOOTLOADER
//	0x2     4     reserved   0x2     1     TEE
//	0x6     1     SNP        0x3     1     SNP
//	0x7     1     MICROCODE  0x4     3     reserved
//	                         0x7     1     MICROCODE
func (v TCBVersion) Decode(p Product) (TCB, error) {
	switch p {
	case Milan, Genoa:
		if v[2]|v[3]|v[4]|v[5] != 0 {
			return TCB{}, fmt.Errorf("TCB %x: bytes 2 to 5 are reserved on %v and not zero", v[:], p)
		}
		return TCB{Bootloader: v[0], TEE: v[1], SNP: v[6], Microcode: v[7]}, nil
	case Turin:
		if v[4]|v[5]|v[6] != 0 {
			return TCB{}, fmt.Errorf("TCB %x: bytes 4 to 6 are reserved on %v and not zero", v[:], p)
		}
		return TCB{FMC: v[0], Bootloader: v[1], TEE: v[2], SNP: v[3], Microcode: v[7]}, nil
	default:
		return TCB{}, fmt.Errorf("TCB %x: its layout is not known for an unknown product", v[:])
	}
}

// Encode returns the levels as a product's reports have them; see Decode.
func (t TCB) Encode(p Product) (TCBVersion, error) {
	switch p {
	case Milan, Genoa:
		if t.FMC != 0 {
			return TCBVersion{}, fmt.Errorf("TCB %v: %v has no FMC", t, p)
		}
		return TCBVersion{0: t.Bootloader, 1: t.TEE, 6: t.SNP, 7: t.Microcode}, nil
	case Turin:
		return TCBVersion{0: t.FMC, 1: t.Bootloader, 2: t.TEE, 3: t.SNP, 7: t.Microcode}, nil
	default:
		return TCBVersion{}, fmt.Errorf("TCB %v: its layout is not known for an unknown product", t)
	}
}

// AtLeast reports whether every level of t reaches that of floor.
func (t TCB) AtLeast(floor TCB) bool {
	return t.FMC >= floor.FMC && t.Bootloader >= floor.Bootloader && t.TEE >= floor.TEE &&
		t.SNP >= floor.SNP && t.Microcode >= floor.Microcode
}

// below names the levels that do not reach floor's.
func (t TCB) below(floor TCB) string {
	var names []string
	for _, l := range []struct {
		name        string
		have, floor byte
	}{
		{"fmc", t.FMC, floor.FMC},
		{"bootloader", t.Bootloader, floor.Bootloader},
		{"tee", t.TEE, floor.TEE},
		{"snp", t.SNP, floor.SNP},
		{"microcode", t.Microcode, floor.Microcode},
	} {
		if l.have < l.floor {
			names = append(names, fmt.Sprintf("%s (%d, want %d)", l.name, l.have, l.floor))
		}
	}
	return strings.Join(names, ", ")
}

// String returns the levels as ParseTCB reads them.
func (t TCB) String() string {
	s := fmt.Sprintf("bootloader=%d,tee=%d,snp=%d,microcode=%d", t.Bootloader, t.TEE, t.SNP, t.Microcode)
	if t.FMC != 0 {
		s = fmt.Sprintf("fmc=%d,%s", t.FMC, s)
	}
	return s
}

// ParseTCB reads levels such as "bootloader=4,tee=0,snp=24,microcode=219", in
// any order. A level that is not named is zero.
func ParseTCB(text string) (TCB, error) {
	var t TCB
	fields := map[string]*byte{
		"fmc": &t.FMC, "bootloader": &t.Bootloader, "tee": &t.TEE, "snp": &t.SNP, "microcode": &t.Microcode,
	}
	for _, part := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		field, ok := fields[name]
		if !ok {
			return TCB{}, fmt.Errorf("TCB: %.40q: want fmc, bootloader, tee, snp or microcode, each once", name)
		}
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil {
			return TCB{}, fmt.Errorf("TCB: %s: %.40q is not a number from 0 to 255", name, value)
		}
		*field = byte(n)
		delete(fields, name)
	}
	return t, nil
}
