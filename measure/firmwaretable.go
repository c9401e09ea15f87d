package measure

import "encoding/binary"

// GUIDs of the table at the end of OVMF. Sources: edk2 2025.02 and 2026.08,
// OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm. An SVSM's is guidSVSMInfo.
var (
	guidFooter   = mustGUID("96b582de-1fb2-45f7-baea-a366c55a082d")
	guidHashArea = mustGUID("7255371f-3a3b-4b04-927b-1da6efa8d454") // u32 base, u32 size
	guidSecret   = mustGUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294") // u32 base, u32 size
	guidReset    = mustGUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e") // u32 eip
	guidMetadata = mustGUID("dc886566-984a-4798-a75e-5585a7bf67cc") // u32 offset from the end
	guidTDX      = mustGUID("e47a6535-984a-4798-865e-4685a7bf8ec2") // u32 offset from the end
	guidIGVM     = mustGUID("784fa70e-3176-4677-8a20-04b68699e374") // u32 offset from the end
)

// table holds the entries of OVMF's GUID table, the one nearest the footer first.
type table []entry

type entry struct {
	id   guid
	data []byte
	at   span // of the data
}

// find returns the entry that counts: of two with the same GUID the one nearest
// the footer, as QEMU takes it.
func (t table) find(id guid) (entry, bool) {
	for _, e := range t {
		if e.id == id {
			return e, true
		}
	}
	return entry{}, false
}

// parseTable reads the GUID table of any firmware for SEV.
func parseTable(image []byte) (table, error) {
	var f findings
	t := f.readTable(image)
	return t, f.err()
}

// readTable reads the table backwards from its footer. Without a footer it
// returns nil.
//
//	offset from the end  size  field
//	−48                  16    GUID of the footer
//	−50                  2     length of the table with its footer, little-endian
//	… below              n     entries, each: data, u16 length with its own 18 bytes, GUID
//
// The first firmwares for SEV-ES had no table but one entry in the footer's
// place: the reset vector's.
// Source: QEMU 10.0.2, hw/i386/pc_sysfw_ovmf.c, pc_system_parse_ovmf_flash;
// target/i386/sev.c, sev_es_find_reset_vector.
func (f *findings) readTable(image []byte) table {
	end := len(image) - 32
	if len(image) < PageSize {
		f.add(ProblemNoTable, span{}, "%d bytes, too few for an OVMF table", len(image))
		return nil
	}
	switch id := guid(image[end-16 : end]); id {
	case guidFooter:
	case guidReset:
		t, _ := f.readEntry(image, table{}, 0, end)
		return t
	default:
		f.add(ProblemNoTable, span{end - 16, end}, "no OVMF table: GUID %v, want %v", id, guidFooter)
		return nil
	}
	end -= entryHead
	length := int(binary.LittleEndian.Uint16(image[end:]))
	if length < entryHead || length-entryHead > end {
		f.add(ProblemTableLength, span{end, end + 2}, "length %d of the OVMF table is not between %d and %d", length, entryHead, end+entryHead)
		return table{}
	}
	t := table{}
	for start := end - (length - entryHead); end > start; {
		t, end = f.readEntry(image, t, start, end)
	}
	return t
}

const entryHead = 18 // bytes of an entry's u16 length and GUID

// readEntry reads the entry that ends at end, and returns where it begins. After
// one that is broken, as in QEMU, no more follow.
func (f *findings) readEntry(image []byte, t table, start, end int) (table, int) {
	if end-start < entryHead {
		f.add(ProblemTableEntry, span{start, end}, "%d stray bytes in the OVMF table", end-start)
		return t, start
	}
	id := guid(image[end-16 : end])
	n := int(binary.LittleEndian.Uint16(image[end-entryHead:]))
	if n < entryHead || n > end-start {
		f.add(ProblemTableEntry, span{end - entryHead, end - 16}, "length %d of the OVMF table's entry %v is not between %d and %d", n, id, entryHead, end-start)
		return t, start
	}
	at := span{end - n, end - entryHead}
	return append(t, entry{id: id, data: image[at.start:at.end], at: at}), at.start
}

// resetVector returns where the vCPUs beside the first start.
func (t table) resetVector() (uint32, error) {
	var f findings
	eip := f.resetBlock(t)
	return eip, f.err()
}

func (f *findings) resetBlock(t table) uint32 {
	e, ok := t.find(guidReset)
	if !ok {
		f.add(ProblemNoResetVector, span{}, "no entry %v (AP reset vector)", guidReset)
		return 0
	}
	if len(e.data) < 4 {
		f.add(ProblemResetVectorSize, e.at, "entry %v (AP reset vector): %d bytes, want 4", guidReset, len(e.data))
		return 0
	}
	eip := binary.LittleEndian.Uint32(e.data)
	if eip == 0 {
		f.add(ProblemResetVectorZero, e.at, "entry %v (AP reset vector): zero", guidReset)
	}
	return eip
}

// hashArea returns the GPA of the SEV hash table, or 0 where there is none. An
// entry that QEMU would refuse is an error.
func (t table) hashArea() (uint32, error) {
	var f findings
	base := f.hashArea(t)
	for _, p := range f.problems {
		if p.Code == ProblemHashTableArea {
			return 0, p
		}
	}
	return base, nil
}

// hashArea: edk2's other platforms carry the entry with base and size 0.
func (f *findings) hashArea(t table) uint32 {
	e, ok := t.find(guidHashArea)
	if !ok {
		f.add(ProblemNoHashTable, span{}, "no SEV hash table in its GUID table")
		return 0
	}
	if len(e.data) < 8 {
		f.add(ProblemHashTableArea, e.at, "a SEV hash table's entry of %d bytes, want 8", len(e.data))
		return 0
	}
	base, size := binary.LittleEndian.Uint32(e.data), binary.LittleEndian.Uint32(e.data[4:])
	switch {
	case base == 0 && size == 0:
		f.add(ProblemNoHashTable, e.at, "no SEV hash table: base and size are zero")
		return 0
	case base == 0 || size < HashTableSize:
		f.add(ProblemHashTableArea, e.at, "a SEV hash table's entry with base %#x and size %#x, want a base and at least %#x bytes", base, size, HashTableSize)
		return 0
	}
	return base
}
