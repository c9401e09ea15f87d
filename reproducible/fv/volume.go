package fv

import (
	"bytes"
	"encoding/binary"
)

// Volumes begin at multiples of this: it is OVMF's block.
const volumeAlign = 4096

// EFI_FIRMWARE_VOLUME_HEADER (volume 3, section 3.2.1):
//
//	 0  16  ZeroVector
//	16  16  FileSystemGuid
//	32   8  FvLength         of the volume with this header, in bytes
//	40   4  Signature        "_FVH"
//	44   4  Attributes       bit 11: erased bytes are 0xff
//	48   2  HeaderLength     with the block map
//	50   2  Checksum         the header's 16-bit words add up to 0
//	52   2  ExtHeaderOffset  0: none
//	54   1  Reserved
//	55   1  Revision         2
//	56   -  BlockMap         pairs of 32 bits, the last pair 0
const (
	volumeHeader    = 56
	volumeSignature = "_FVH"
	erasePolarity   = 1 << 11
)

// EFI_FIRMWARE_VOLUME_EXT_HEADER (volume 3, section 3.2.2):
//
//	 0  16  FvName
//	16   4  ExtHeaderSize  with its entries
const extHeader = 20

// volumes reads what may hold volumes and gaps between them.
func (r *reader) volumes(p place, data []byte) error {
	gap := 0
	for at := 0; at+volumeHeader <= len(data); {
		if string(data[at+40:at+44]) != volumeSignature {
			at += volumeAlign
			continue
		}
		if err := r.piece(p.at(gap), "gap", data[gap:at]); err != nil {
			return err
		}
		size, err := r.volume(p.at(at), data[at:])
		if err != nil {
			return err
		}
		at += size
		gap = at
	}
	return r.piece(p.at(gap), "gap", data[gap:])
}

// volume reads the volume that data begins with, and returns its size.
func (r *reader) volume(p place, data []byte) (int, error) {
	length := binary.LittleEndian.Uint64(data[32:])
	header := int(binary.LittleEndian.Uint16(data[48:]))
	switch {
	case length > uint64(len(data)):
		return 0, p.fail(32, "FvLength: %#x bytes, and %#x are there", length, len(data))
	case header < volumeHeader+8 || header%2 != 0 || uint64(header) > length:
		return 0, p.fail(48, "HeaderLength: %#x", header)
	case data[55] != 2:
		return 0, p.fail(55, "Revision: %d, want 2", data[55])
	case sum16(data[:header]) != 0:
		return 0, p.fail(50, "Checksum: the header's words add up to %#x, want 0", sum16(data[:header]))
	}
	volume := data[:length]
	ext := int(binary.LittleEndian.Uint16(volume[52:]))
	files, name, err := extended(p, volume, header, ext)
	if err != nil {
		return 0, err
	}
	inner, err := r.add(p, name, volume, true)
	if err != nil {
		return 0, err
	}
	if !fileSystem(guidOf(volume[16:])) {
		if err := r.piece(inner, headerName, volume[:header]); err != nil {
			return 0, err
		}
		return len(volume), r.piece(inner.at(header), "data", volume[header:])
	}
	if err := r.piece(inner, headerName, volume[:files]); err != nil {
		return 0, err
	}
	erased := byte(0)
	if binary.LittleEndian.Uint32(volume[44:])&erasePolarity != 0 {
		erased = 0xff
	}
	return len(volume), r.files(inner, volume, files, erased)
}

// extended reads the header's extension. It returns where files begin, and the
// volume's name: that of its extension, or of its file system.
func extended(p place, volume []byte, header, ext int) (files int, name string, err error) {
	if ext == 0 {
		return header, nameOf(guidOf(volume[16:])), nil
	}
	if ext < header || ext+extHeader > len(volume) {
		return 0, "", p.fail(52, "ExtHeaderOffset: %#x", ext)
	}
	size := binary.LittleEndian.Uint32(volume[ext+16:])
	if size < extHeader || uint64(size) > uint64(len(volume)-ext) {
		return 0, "", p.fail(ext+16, "ExtHeaderSize: %#x", size)
	}
	return ext + int(size), nameOf(guidOf(volume[ext:])), nil
}

// files reads files up to the volume's free space.
func (r *reader) files(p place, volume []byte, at int, erased byte) error {
	for {
		at = align(at, 8)
		if at+fileHeader > len(volume) || blank(volume[at:at+fileHeader], erased) {
			break
		}
		size, err := r.file(p.at(at), volume[at:])
		if err != nil {
			return err
		}
		at += size
	}
	if at >= len(volume) {
		return nil
	}
	return r.piece(p.at(at), "free space", volume[at:])
}

func blank(data []byte, erased byte) bool {
	return len(bytes.TrimLeft(data, string([]byte{erased}))) == 0
}

func align(n, to int) int { return (n + to - 1) / to * to }

func sum16(data []byte) uint16 {
	var sum uint16
	for i := 0; i+1 < len(data); i += 2 {
		sum += binary.LittleEndian.Uint16(data[i:])
	}
	return sum
}

func sum8(data []byte) byte {
	var sum byte
	for _, b := range data {
		sum += b
	}
	return sum
}
