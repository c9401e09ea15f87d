package compare

import (
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/kraudcloud/kattest/internal/lazyre"
	"github.com/kraudcloud/kattest/reproducible/initrd"
)

// formats are the kinds of files that are looked into, by what they begin with.
var formats = []struct {
	kind   string
	begins func(data []byte) bool
	open   func(data []byte) ([]part, error)
}{
	{"initrd", magic("070701"), openInitrd},
	{"bzImage", bzImage, openBzImage},
	{"ELF", magic(elf.ELFMAG), openELF},
	{"configuration", magic("#\n# Automatically generated file; DO NOT EDIT."), openConfiguration},
	{"gzip", magic("\x1f\x8b"), unpack(func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })},
	{"zstd", magic("\x28\xb5\x2f\xfd"), unpack(openZstd)},
	{"lz4", magic("\x02\x21\x4c\x18"), unpack(func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil })},
}

// open returns the parts of a file of a known kind; of another the kind is empty.
func open(data []byte) (parts []part, kind string) {
	for _, f := range formats {
		if !f.begins(data) {
			continue
		}
		parts, err := f.open(data)
		if err != nil {
			return nil, ""
		}
		return numbered(parts), f.kind
	}
	return nil, ""
}

func magic(m string) func([]byte) bool {
	return func(data []byte) bool { return bytes.HasPrefix(data, []byte(m)) }
}

// numbered gives parts of the same name different ones.
func numbered(parts []part) []part {
	seen := map[string]int{}
	for i, p := range parts {
		seen[p.name]++
		if n := seen[p.name]; n > 1 {
			parts[i].name = fmt.Sprintf("%s (%d)", p.name, n)
		}
	}
	return parts
}

// maxUnpacked bounds what a compressed file unpacks to, in bytes.
const maxUnpacked = 256 << 20

var errTooLarge = errors.New("unpacks to too much")

func unpack(reader func(io.Reader) (io.Reader, error)) func([]byte) ([]part, error) {
	return func(data []byte) ([]part, error) {
		r, err := reader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		unpacked, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
		if err != nil {
			return nil, err
		}
		if len(unpacked) > maxUnpacked {
			return nil, errTooLarge
		}
		return []part{{name: "unpacked", data: unpacked}}, nil
	}
}

func openZstd(r io.Reader) (io.Reader, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpacked))
}

func openInitrd(data []byte) ([]part, error) {
	entries, err := initrd.Parse(data)
	if err != nil {
		return nil, err
	}
	var parts []part
	for _, e := range entries {
		parts = append(parts, part{e.Name, fmt.Sprintf("mode %o, device %d:%d", e.Mode, e.Major, e.Minor), e.Data})
	}
	return parts, nil
}

// Offsets in a bzImage. Source: Linux, Documentation/arch/x86/boot.rst, The
// Real-Mode Kernel Header.
const (
	setupSects    = 0x1f1 // 1 byte; sectors of 512 bytes after the first
	headerMagic   = 0x202 // "HdrS"
	payloadOffset = 0x248 // 4 bytes, from the protected-mode code on
	payloadLength = 0x24c // 4 bytes
	headerEnd     = 0x250
)

func bzImage(data []byte) bool {
	return len(data) >= headerEnd && string(data[headerMagic:headerMagic+4]) == "HdrS"
}

// openBzImage finds the compressed kernel in the code that unpacks it.
func openBzImage(data []byte) ([]part, error) {
	code := (int(data[setupSects]) + 1) * 512
	if code > len(data) {
		return nil, errors.New("setup is longer than the file")
	}
	offset, length := binary.LittleEndian.Uint32(data[payloadOffset:]), binary.LittleEndian.Uint32(data[payloadLength:])
	begin := uint64(code) + uint64(offset)
	end := begin + uint64(length)
	if end > uint64(len(data)) {
		return nil, errors.New("payload is longer than the file")
	}
	payload := data[begin:end]
	// All but gzip have the unpacked size behind them, 4 bytes.
	if n := len(payload) - 4; n > 0 && !bytes.HasPrefix(payload, []byte("\x1f\x8b")) {
		payload = payload[:n]
	}
	return []part{
		{name: "compressed kernel", data: payload}, // first, as the others hold its size
		{name: "setup", data: data[:code]},
		{name: "unpacking code", data: data[code:begin]},
		{name: "behind the compressed kernel", data: data[end:]},
	}, nil
}

// openELF gives what Go says of a program that it compiled, and the sections.
func openELF(data []byte) ([]part, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var parts []part
	if info, err := buildinfo.Read(bytes.NewReader(data)); err == nil {
		parts = append(parts, part{name: "build information", data: []byte(info.String())})
	}
	for _, s := range f.Sections {
		if s.Type == elf.SHT_NULL {
			continue
		}
		p := part{name: "section " + s.Name, attributes: fmt.Sprintf("%v, %v", s.Type, s.Flags)}
		if s.Type != elf.SHT_NOBITS {
			if s.Offset+s.FileSize < s.Offset || s.Offset+s.FileSize > uint64(len(data)) {
				return nil, fmt.Errorf("section %s leads out of the file", s.Name)
			}
			p.data = data[s.Offset : s.Offset+s.FileSize]
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// optionRE is a line of a kernel's configuration. Source: Linux,
// Documentation/kbuild/kconfig.rst.
var optionRE = lazyre.New(`^(?:(CONFIG_[A-Za-z0-9_]+)=(.*)|# (CONFIG_[A-Za-z0-9_]+) is not set)$`)

func openConfiguration(data []byte) ([]part, error) {
	var parts []part
	for l := range strings.Lines(string(data)) {
		if m := optionRE().FindStringSubmatch(strings.TrimSuffix(l, "\n")); m != nil {
			value := m[2]
			if m[3] != "" {
				value = "n"
			}
			parts = append(parts, part{name: m[1] + m[3], attributes: value})
		}
	}
	return parts, nil
}
