// Package compare finds where two files of a boot stack part, and says it in the
// terms of what they are: an entry of an initrd, a section of a program, an option
// of a kernel's configuration.
//
// It looks for the first difference alone. Either file may be an adversary's: what
// is no file of its kind, or unpacks to more than it should, is compared as bytes.
package compare

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/kraudcloud/kattest/reproducible/fv"
)

// Difference is where two files part.
type Difference struct {
	// Path leads inside, the outermost part first; empty is the file itself.
	Path []string `json:"path"`
	// Offset is the first byte that differs, counted from where the innermost part
	// begins; -1 where no byte does, as one has what the other lacks.
	Offset int64 `json:"offset"`
	// First and Second are what the two have there: up to 16 bytes in hexadecimal,
	// a line of text in quotes, or words.
	First  string `json:"first"`
	Second string `json:"second"`
}

// What of a part one file lacks.
const (
	absent  = "absent"
	present = "present"
	ended   = "at its end"
)

func (d Difference) String() string {
	at := ""
	if d.Offset >= 0 {
		at = fmt.Sprintf("offset 0x%x: ", d.Offset)
	}
	path := ""
	if len(d.Path) > 0 {
		path = strings.Join(d.Path, ", ") + ": "
	}
	return fmt.Sprintf("%s%s%s, %s", path, at, d.First, d.Second)
}

// maxDepth bounds how far inside is looked: firmware has volumes in sections in
// files in volumes.
const maxDepth = 12

// Files returns where the files part, and whether they do.
func Files(first, second []byte) (Difference, bool) {
	if bytes.Equal(first, second) {
		return Difference{}, false
	}
	return inside(nil, first, second), true
}

// inside looks for the first part that differs in two files that do.
func inside(path []string, first, second []byte) Difference {
	if len(path) < maxDepth {
		if d, ok := modules(path, first, second); ok {
			return d
		}
		a, kind := open(first)
		b, other := open(second)
		if kind != "" && kind == other {
			if d, ok := parts(path, a, b); ok {
				return d
			}
		}
	}
	return raw(path, first, second)
}

// modules looks into firmware: volumes, their files, and what these hold.
func modules(path []string, first, second []byte) (Difference, bool) {
	if !firmware(first) || !firmware(second) {
		return Difference{}, false
	}
	a, errA := fv.Open(first)
	b, errB := fv.Open(second)
	if errA != nil || errB != nil {
		return Difference{}, false
	}
	all := fv.Compare(a, b)
	if len(all) == 0 {
		return Difference{}, false
	}
	d := all[0]
	under := append(path[:len(path):len(path)], strings.Split(d.Path, "/")...)
	switch {
	case d.A == nil:
		return Difference{under, -1, absent, present}, true
	case d.B == nil:
		return Difference{under, -1, present, absent}, true
	}
	return inside(under, d.A.Data, d.B.Data), true
}

// firmware reports whether a volume's header begins the image, as edk2's platforms
// for virtual machines have it. Source: UEFI Platform Initialization Specification
// 1.8, volume 3, section 3.2.1, EFI_FIRMWARE_VOLUME_HEADER.
func firmware(data []byte) bool {
	const signature = 40 // its offset
	return len(data) > signature+4 && string(data[signature:signature+4]) == "_FVH"
}

// part is a named piece of a file.
type part struct {
	name string
	// attributes are what is said of it besides its content.
	attributes string
	data       []byte
}

// parts compares by name: the first that one lacks or that differs.
func parts(path []string, first, second []part) (Difference, bool) {
	others := map[string]part{}
	for _, p := range second {
		others[p.name] = p
	}
	under := func(p part) []string { return append(path[:len(path):len(path)], p.name) }
	for _, p := range first {
		other, ok := others[p.name]
		switch {
		case !ok:
			return Difference{under(p), -1, present, absent}, true
		case p.attributes != other.attributes:
			return Difference{under(p), -1, p.attributes, other.attributes}, true
		case !bytes.Equal(p.data, other.data):
			return inside(under(p), p.data, other.data), true
		}
		delete(others, p.name)
	}
	for _, p := range second {
		if _, ok := others[p.name]; ok {
			return Difference{under(p), -1, absent, present}, true
		}
	}
	return Difference{}, false
}

// shown is how many bytes of each side a difference shows.
const shown = 16

// raw compares as bytes.
func raw(path []string, first, second []byte) Difference {
	at := 0
	for at < min(len(first), len(second)) && first[at] == second[at] {
		at++
	}
	if text(first) && text(second) {
		return Difference{path, int64(at), line(first, at), line(second, at)}
	}
	return Difference{path, int64(at), octets(first, at), octets(second, at)}
}

func octets(data []byte, at int) string {
	if at == len(data) {
		return ended
	}
	return hex.EncodeToString(data[at:min(at+shown, len(data))])
}

// maxText bounds what is looked at as text, in bytes.
const maxText = 1 << 20

func text(data []byte) bool {
	return len(data) < maxText && utf8.Valid(data) && !bytes.ContainsFunc(data, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' })
}

// before is how much of a line stands before what differs, in bytes.
const before = 60

// line is the line around an offset, quoted.
func line(data []byte, at int) string {
	if at == len(data) {
		return ended
	}
	begin := max(bytes.LastIndexByte(data[:at], '\n')+1, at-before)
	l, _, _ := bytes.Cut(data[begin:], []byte("\n"))
	return fmt.Sprintf("%.120q", l)
}
