package initrd

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/pierrec/lz4/v4"
)

const (
	// lz4Magic starts a frame.
	lz4Magic = "\x02\x21\x4c\x18"
	// lz4Block is what every block but the last unpacks to, in bytes.
	lz4Block = 8 << 20
	// maxUnpacked bounds what Decompress makes of a file, in bytes.
	maxUnpacked = 256 << 20
)

// Compress returns data as LZ4, in the one form that Linux unpacks: a "legacy"
// frame. The same data gives the same bytes.
//
//	offset  size  field  value
//	0x00    4     magic  02 21 4c 18
//	then for each 8 MiB of data, and for what is left of it:
//	0x00    4     n      size of the block, bytes, little-endian
//	0x04    n     block  an LZ4 block
//
// Sources: LZ4 frame format 1.6.4, section "Legacy frame"; Linux 6.12,
// lib/decompress_unlz4.c.
func Compress(data []byte) ([]byte, error) {
	frame := []byte(lz4Magic)
	packed := make([]byte, lz4.CompressBlockBound(min(len(data), lz4Block)))
	compressor := lz4.CompressorHC{Level: lz4.Level5}
	for len(data) > 0 {
		block := data[:min(len(data), lz4Block)]
		n, err := compressor.CompressBlock(block, packed)
		if err == nil && n == 0 {
			err = errors.New("a block did not fit")
		}
		if err != nil {
			return nil, fmt.Errorf("initrd: compressing: %w", err)
		}
		frame = binary.LittleEndian.AppendUint32(frame, uint32(n))
		frame = append(frame, packed[:n]...)
		data = data[len(block):]
	}
	return frame, nil
}

// Decompress reads what Compress wrote. Errors name the offset in bytes.
func Decompress(frame []byte) ([]byte, error) {
	data, err := decompress(frame)
	if err != nil {
		return nil, fmt.Errorf("initrd: LZ4: %w", err)
	}
	again, err := Compress(data)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(frame, again) {
		return nil, fmt.Errorf("initrd: LZ4: offset %#x: not as this package compresses it", difference(frame, again))
	}
	return data, nil
}

func decompress(frame []byte) ([]byte, error) {
	if !isLZ4(frame) {
		start := frame[:min(len(frame), len(lz4Magic))]
		return nil, fmt.Errorf("offset 0x0: magic: %s, want %s", hex.EncodeToString(start), hex.EncodeToString([]byte(lz4Magic)))
	}
	data := []byte{}
	unpacked := make([]byte, lz4Block)
	for off := len(lz4Magic); off < len(frame); {
		rest := frame[off:]
		if len(rest) < 4 {
			return nil, fmt.Errorf("offset %#x: %d bytes left, the size of a block has 4", off, len(rest))
		}
		size := binary.LittleEndian.Uint32(rest)
		if uint64(size) > uint64(len(rest)-4) {
			return nil, fmt.Errorf("offset %#x: a block of %d bytes, %d are left", off, size, len(rest)-4)
		}
		n, err := lz4.UncompressBlock(rest[4:4+size], unpacked)
		if err != nil {
			return nil, fmt.Errorf("offset %#x: block: %w", off+4, err)
		}
		if len(data)+n > maxUnpacked {
			return nil, fmt.Errorf("offset %#x: more than %d bytes", off, maxUnpacked)
		}
		data = append(data, unpacked[:n]...)
		off += 4 + int(size)
	}
	return data, nil
}

func isLZ4(file []byte) bool { return bytes.HasPrefix(file, []byte(lz4Magic)) }
