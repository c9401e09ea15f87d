package measure

import (
	"encoding/binary"
	"fmt"
)

// guidSVSMInfo names the entry with an SVSM's offset of its 32-bit entry point.
// Source: sev-snp-measure 8f2b337e, sevsnpmeasure/ovmf.py; Coconut's QEMU.
var guidSVSMInfo = mustGUID("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd") // u32 offset

// svsmImage is an SVSM's image in guest memory.
type svsmImage struct {
	gpa      uint64
	contents []Digest
}

// ParseSVSM reads the images of a firmware and of an SVSM that is launched in
// front of it, as Coconut's QEMU did before IGVM: the SVSM's ends vars bytes, the
// size of the firmware's variable store, below the firmware. The sections are
// the SVSM's, and every vCPU starts in it.
func ParseSVSM(firmware, svsm []byte, vars int64) (*Firmware, error) {
	f, err := parseSVSM(firmware, svsm, vars)
	if err != nil {
		return nil, fmt.Errorf("SVSM: %w", err)
	}
	return f, nil
}

func parseSVSM(firmware, svsm []byte, vars int64) (*Firmware, error) {
	for _, b := range [][]byte{firmware, svsm} {
		if n := len(b); n == 0 || n%PageSize != 0 || n > MaxFirmware {
			return nil, fmt.Errorf("an image of %d bytes, want a multiple of %d up to %d", n, PageSize, MaxFirmware)
		}
	}
	if vars < 0 || vars%PageSize != 0 || vars > MaxFirmware {
		return nil, fmt.Errorf("variable store of %d bytes, want a multiple of %d up to %d", vars, PageSize, MaxFirmware)
	}
	entries, err := parseTable(svsm)
	if err != nil {
		return nil, err
	}
	info, ok := entries.find(guidSVSMInfo)
	if !ok || len(info.data) < 4 {
		return nil, fmt.Errorf("entry %v (SVSM_INFO): %d bytes, want 4", guidSVSMInfo, len(info.data))
	}
	entry := binary.LittleEndian.Uint32(info.data)
	if uint64(entry) >= uint64(len(svsm)) {
		return nil, fmt.Errorf("entry %v (SVSM_INFO): offset %#x is beyond the image's %#x bytes", guidSVSMInfo, entry, len(svsm))
	}
	base := uint64(fourGiB-len(firmware)) - uint64(vars) - uint64(len(svsm))
	sections, err := parseMetadata(svsm, entries, base)
	if err != nil {
		return nil, err
	}
	f := &Firmware{
		size:        uint32(len(firmware)),
		contents:    hashPages(firmware),
		sections:    sections,
		resetVector: uint32(base) + entry,
		svsm:        &svsmImage{gpa: base, contents: hashPages(svsm)},
	}
	f.digest = Digest{}.image(fourGiB-uint64(f.size), f.contents).image(base, f.svsm.contents)
	return f, nil
}
