package fv

import "encoding/binary"

// EFI_FFS_FILE_HEADER, and EFI_FFS_FILE_HEADER2 for large files (volume 3,
// section 3.2.3):
//
//	 0  16  Name
//	16   1  IntegrityCheck.Header  with it, bytes 0 to 22 but 17 add up to 0
//	17   1  IntegrityCheck.File    with it the content adds up to 0, or 0xaa
//	18   1  Type
//	19   1  Attributes             bit 0: large; bit 6: the content has a sum
//	20   3  Size                   with this header, in bytes; 0 if large
//	23   1  State
//	24   8  ExtendedSize           of large files alone
const (
	fileHeader      = 24
	largeFileHeader = 32

	attributeLarge    = 1 << 0
	attributeChecksum = 1 << 6
	noChecksum        = 0xaa
)

// Types of files of which something is said here (volume 3, section 2.1.4.1).
const (
	fileRaw = 0x01
	filePad = 0xf0
)

// file reads the file that data begins with, and returns its size.
func (r *reader) file(p place, data []byte) (int, error) {
	header, size, err := fileSize(p, data)
	if err != nil {
		return 0, err
	}
	file := data[:size]
	if err := checkFile(p, file, header); err != nil {
		return 0, err
	}
	kind, content := file[18], file[header:]
	if kind == filePad {
		return size, r.piece(p, "pad", file)
	}
	name := nameOf(guidOf(file))
	sectioned := kind != fileRaw
	if sectioned {
		if ui := uiName(content); ui != "" {
			name = ui
		}
	}
	inner, err := r.add(p, name, file, true)
	if err != nil {
		return 0, err
	}
	if err := r.piece(inner, headerName, file[:header]); err != nil {
		return 0, err
	}
	if !sectioned {
		return size, r.piece(inner.at(header), "data", content)
	}
	return size, r.sections(inner.at(header), content)
}

func fileSize(p place, data []byte) (header, size int, err error) {
	header, long := fileHeader, uint64(uint24(data[20:]))
	if data[19]&attributeLarge != 0 {
		header = largeFileHeader
		if len(data) < header {
			return 0, 0, p.fail(24, "ExtendedSize: cut off")
		}
		long = binary.LittleEndian.Uint64(data[24:])
	}
	if long < uint64(header) || long > uint64(len(data)) {
		return 0, 0, p.fail(20, "Size: %#x bytes, and %#x are there", long, len(data))
	}
	return header, int(long), nil
}

func checkFile(p place, file []byte, header int) error {
	// State is not in the sum, as it changes while a file is written.
	sum := sum8(file[:header]) - file[17] - file[23]
	if sum != 0 {
		return p.fail(16, "IntegrityCheck.Header: the header of %v adds up to %#x, want 0", guidOf(file), sum)
	}
	if file[19]&attributeChecksum == 0 {
		if file[17] != noChecksum {
			return p.fail(17, "IntegrityCheck.File: %#x of %v, want %#x", file[17], guidOf(file), noChecksum)
		}
		return nil
	}
	if sum := sum8(file[header:]) + file[17]; sum != 0 {
		return p.fail(17, "IntegrityCheck.File: %v adds up to %#x, want 0", guidOf(file), sum)
	}
	return nil
}

func uint24(b []byte) uint32 { return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 }
