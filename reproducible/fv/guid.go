package fv

import (
	"encoding/binary"
	"fmt"
)

// guid is a GUID as it stands in memory: its first three fields little-endian.
type guid [16]byte

// guidOf reads the GUID that b begins with.
func guidOf(b []byte) guid { return guid(b[:16]) }

func (g guid) String() string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(g[0:]),
		binary.LittleEndian.Uint16(g[4:]), binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}

// lzmaGUID is gLzmaCustomDecompressGuid (edk2, MdeModulePkg/MdeModulePkg.dec).
const lzmaGUID = "ee4e5898-3914-4259-9d6e-dc7bd79403cf"

// fileSystem says whether a volume with that file system holds files (volume 3,
// section 3.2.1): FFS2 and FFS3.
func fileSystem(g guid) bool {
	switch g.String() {
	case "8c8ce578-8a3d-4f1c-9935-896185c32dd3", "5473c07a-3dcb-4dca-bd6f-1e9689e7349a":
		return true
	}
	return false
}

// nameOf returns what a GUID is called: volumes by their FvNameGuid in edk2's
// OvmfPkg/AmdSev/AmdSevX64.fdf and OvmfPkgX64.fdf, and files that have no name of
// their own (MdePkg/MdePkg.dec; volume 3, sections 3.2.4 and 3.2.6). Others are
// called by their digits.
func nameOf(g guid) string {
	switch text := g.String(); text {
	case "763bed0d-de9f-48f5-81f1-3e90e1b1a015":
		return "SECFV"
	case "6938079b-b503-4e3d-9d24-b28337a25806":
		return "PEIFV"
	case "7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1":
		return "DXEFV"
	case "48db5e17-707c-472d-91cd-1613e7ef51b0":
		return "FVMAIN_COMPACT"
	case "fff12b8d-7696-4c8b-a985-2747075b4f50":
		return "NVRAM"
	case "1ba0062e-c779-4582-8566-336ae8f78f09":
		return "volume top"
	case "fc510ee7-ffdc-11d4-bd41-0080c73c8881":
		return "DXE a priori"
	case "1b45cc0a-156a-428a-af62-49864da0e6e6":
		return "PEI a priori"
	default:
		return text
	}
}
