package fv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf16"

	"github.com/ulikunitz/xz/lzma"
)

// EFI_COMMON_SECTION_HEADER, and EFI_COMMON_SECTION_HEADER2 for large sections
// (volume 3, section 3.2.5); sections begin at multiples of 4:
//
//	0  3  Size          with this header, in bytes; 0xffffff if large
//	3  1  Type
//	4  4  ExtendedSize  of large sections alone
//
// EFI_GUID_DEFINED_SECTION goes on, behind either:
//
//	 0  16  SectionDefinitionGuid
//	16   2  DataOffset  of the content, from the section's begin
//	18   2  Attributes
const (
	sectionHeader      = 4
	largeSectionHeader = 8
	largeSection       = 0xffffff
	guidedHeader       = 20
)

// Types of sections (volume 3, section 2.1.5.1).
const (
	sectionGUIDDefined = 0x02
	sectionUI          = 0x15
	sectionVolume      = 0x17
)

func sectionName(kind byte) string {
	switch kind {
	case 0x01:
		return "compressed"
	case 0x03:
		return "disposable"
	case 0x10:
		return "PE32"
	case 0x11:
		return "PIC"
	case 0x12:
		return "TE"
	case 0x13:
		return "DXE depex"
	case 0x14:
		return "version"
	case sectionUI:
		return "UI"
	case 0x16:
		return "compatibility16"
	case 0x18:
		return "freeform"
	case 0x19:
		return "raw"
	case 0x1b:
		return "PEI depex"
	case 0x1c:
		return "MM depex"
	default:
		return fmt.Sprintf("section %#02x", kind)
	}
}

// section is one section, with where its content begins.
type section struct {
	kind    byte
	data    []byte
	content int
}

// sectionAt reads the header of the section that data begins with.
func sectionAt(p place, data []byte) (section, error) {
	if len(data) < sectionHeader {
		return section{}, p.fail(0, "section: cut off")
	}
	s := section{kind: data[3], content: sectionHeader}
	size := uint64(uint24(data))
	if size == largeSection {
		s.content = largeSectionHeader
		if len(data) < s.content {
			return section{}, p.fail(4, "section: ExtendedSize: cut off")
		}
		size = uint64(binary.LittleEndian.Uint32(data[4:]))
	}
	if size < uint64(s.content) || size > uint64(len(data)) {
		return section{}, p.fail(0, "section: Size: %#x bytes, and %#x are there", size, len(data))
	}
	s.data = data[:size]
	return s, nil
}

func (r *reader) sections(p place, data []byte) error {
	for at := 0; at < len(data); {
		s, err := sectionAt(p.at(at), data[at:])
		if err != nil {
			return err
		}
		if err := r.section(p.at(at), s); err != nil {
			return err
		}
		at = align(at+len(s.data), 4)
	}
	return nil
}

func (r *reader) section(p place, s section) error {
	switch s.kind {
	case sectionVolume:
		// The volume inside has a name of its own.
		if err := r.piece(p, "volume section", s.data[:s.content]); err != nil {
			return err
		}
		return r.volumes(p.at(s.content), s.data[s.content:])
	case sectionGUIDDefined:
		return r.guided(p, s)
	default:
		return r.piece(p, sectionName(s.kind), s.data)
	}
}

// guided reads a section whose GUID says how its content is to be had.
func (r *reader) guided(p place, s section) error {
	if len(s.data) < s.content+guidedHeader {
		return p.fail(s.content, "guided section: cut off")
	}
	if g := guidOf(s.data[s.content:]); g.String() != lzmaGUID {
		return r.piece(p, "guided "+g.String(), s.data)
	}
	offset := int(binary.LittleEndian.Uint16(s.data[s.content+16:]))
	if offset < s.content+guidedHeader || offset > len(s.data) {
		return p.fail(s.content+16, "guided section: DataOffset: %#x", offset)
	}
	unpacked, err := r.unpack(s.data[offset:])
	if err != nil {
		return p.fail(offset, "LZMA: %w", err)
	}
	inner, err := r.add(p, "lzma", s.data, true)
	if err != nil {
		return err
	}
	inner.inside, inner.offset = inner.path, 0
	return r.sections(inner, unpacked)
}

// unpack decompresses the classic LZMA format, of which the header says the size.
func (r *reader) unpack(data []byte) ([]byte, error) {
	// Properties 1, dictionary size 4, uncompressed size 8.
	if len(data) < lzma.HeaderLen {
		return nil, io.ErrUnexpectedEOF
	}
	size := binary.LittleEndian.Uint64(data[5:])
	if size > uint64(maxUnpacked-r.unpacked) {
		return nil, fmt.Errorf("%d bytes: the image unpacks to more than %d", size, maxUnpacked)
	}
	in, err := lzma.ReaderConfig{DictCap: maxUnpacked}.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer // not of that size at once: it is the image's word
	n, err := io.Copy(&out, io.LimitReader(in, int64(size)+1))
	if err != nil {
		return nil, err
	}
	if uint64(n) != size {
		return nil, fmt.Errorf("%d bytes, and its header says %d", n, size)
	}
	r.unpacked += int(n)
	return out.Bytes(), nil
}

// uiName returns the name that a file's UI section gives it, "" if there is none.
func uiName(content []byte) string {
	for at := 0; at < len(content); {
		s, err := sectionAt(place{}, content[at:])
		if err != nil {
			return ""
		}
		if s.kind == sectionUI {
			return plain(utf16Text(s.data[s.content:]))
		}
		at = align(at+len(s.data), 4)
	}
	return ""
}

// maxName bounds a name out of an image, in UTF-16 units.
const maxName = 64

func utf16Text(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b) && len(units) < maxName; i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
