// Package fv takes a UEFI firmware image apart: into firmware volumes, their
// files and those files' sections, through what is compressed, so that two
// images can be compared module by module. Sources: UEFI Platform Initialization
// Specification 1.8, volume 3, sections 2 and 3; edk2's LZMA section
// (MdeModulePkg, Library/LzmaCustomDecompressLib).
//
// It checks sizes and checksums. It does not check what the modules are, nor
// that a boot would find them: an image may be valid here and not start.
package fv

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds on an image: what is beyond is refused.
const (
	maxImage    = 64 << 20  // bytes
	maxUnpacked = 128 << 20 // bytes of all that is decompressed
	maxParts    = 1 << 16
	maxDepth    = 12 // of parts within parts
)

// Part is a piece of an image that has a name.
type Part struct {
	// Path names the part and those around it, the outermost first:
	// "FVMAIN_COMPACT/9e21fd93-…/lzma/DXEFV/DxeCore/PE32". Where several have one
	// name, the second is "NAME#2".
	Path string
	// Inside is the path of the compressed section that it was unpacked from, ""
	// for what stands in the image itself.
	Inside string
	// Offset is where it begins, in bytes of the image or of what Inside holds.
	Offset int
	// Data is its content, headers included; not to be changed.
	Data []byte
	// Whole says that other parts are pieces of it.
	Whole bool
}

// Open returns the parts of an image in their order, each before its pieces.
// What is no part of a volume is named "gap". The error names the part and the
// offset of what is wrong, and there are no parts then.
func Open(image []byte) ([]Part, error) {
	if len(image) > maxImage {
		return nil, fmt.Errorf("firmware image: %d bytes, more than %d", len(image), maxImage)
	}
	r := &reader{names: map[string]int{}}
	if err := r.volumes(place{}, image); err != nil {
		return nil, fmt.Errorf("firmware image: %w", err)
	}
	return r.parts, nil
}

// reader collects the parts of one image.
type reader struct {
	parts    []Part
	names    map[string]int // how often each path was given
	unpacked int            // bytes
}

// place is where a part lies.
type place struct {
	path, inside string
	offset       int
	depth        int
}

// at is the place of a piece that begins at an offset of the part.
func (p place) at(offset int) place {
	p.offset += offset
	return p
}

// fail is an error about a piece of a part.
func (p place) fail(offset int, format string, args ...any) error {
	where := fmt.Sprintf("offset %#x", p.offset+offset)
	if p.inside != "" {
		where += " of what " + p.inside + " holds"
	}
	if p.path != "" {
		where = p.path + ": " + where
	}
	return fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...))
}

var errTooMany = errors.New("more parts than an image has")

// add adds a part that is called name and lies at p. It returns the place of its
// pieces.
func (r *reader) add(p place, name string, data []byte, whole bool) (place, error) {
	if len(r.parts) == maxParts {
		return place{}, p.fail(0, "%w", errTooMany)
	}
	if p.depth == maxDepth {
		return place{}, p.fail(0, "parts within parts, deeper than %d", maxDepth)
	}
	p.path = r.unique(join(p.path, name))
	p.depth++
	r.parts = append(r.parts, Part{Path: p.path, Inside: p.inside, Offset: p.offset, Data: data, Whole: whole})
	return p, nil
}

// piece adds a part without pieces, unless it is empty.
func (r *reader) piece(p place, name string, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	_, err := r.add(p, name, data, false)
	return err
}

func (r *reader) unique(path string) string {
	r.names[path]++
	if n := r.names[path]; n > 1 {
		return fmt.Sprintf("%s#%d", path, n)
	}
	return path
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

// plain makes a name of text out of an image: a part of a path and no more.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || r == '/' || r == '#' || r > 0xff {
			return '_'
		}
		return r
	}, text)
}
