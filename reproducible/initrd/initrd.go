// Package initrd writes and reads the guest's initial file system: a cpio
// archive in the "newc" form, of which one content has one encoding (no times, no
// owners, no inode numbers), compressed with LZ4.
//
// It does not read archives of other programs: Parse accepts what Encode and
// Compress write and nothing else.
package initrd

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Entry is one file of an archive, owned by root.
type Entry struct {
	// Name is the path below the root, without a leading slash.
	Name string
	// Mode holds type and permissions as st_mode does; see the Type constants.
	Mode uint32
	// Major and Minor number a character device.
	Major, Minor uint32
	// Data is the content of a regular file.
	Data []byte
}

// Types of file, as in inode(7).
const (
	TypeDir  = 0o040000
	TypeChar = 0o020000
	TypeFile = 0o100000

	typeMask = 0o170000
	permMask = 0o7777
)

const (
	headerSize = 110
	magic      = "070701"
	trailer    = "TRAILER!!!"
	// blockSize is the unit to which cpio(1) pads an archive, in bytes.
	blockSize = 512
	maxData   = 1<<32 - 1
)

// Encode returns the archive of entries, in their order. A folder stands before
// what it holds; no name stands twice.
//
// An archive is a row of members, then the member "TRAILER!!!", then zeros up to
// a multiple of 512 bytes. All numbers are 8 upper-case hexadecimal digits.
// Linux, Documentation/driver-api/early-userspace/buffer-format.rst:
//
//	offset  size  field      value here
//	0x00    6     c_magic    "070701"
//	0x06    8     c_ino      0
//	0x0e    8     c_mode     type and permissions; 0 in the trailer
//	0x16    8     c_uid      0
//	0x1e    8     c_gid      0
//	0x26    8     c_nlink    1
//	0x2e    8     c_mtime    0
//	0x36    8     c_filesize length n of the data, bytes
//	0x3e    8     c_maj      0
//	0x46    8     c_min      0
//	0x4e    8     c_rmaj     major number of a device, else 0
//	0x56    8     c_rmin     minor number of a device, else 0
//	0x5e    8     c_namesize length m of the name with its NUL, bytes
//	0x66    8     c_chksum   0
//	0x6e    m     name       NUL-terminated, then zeros to a multiple of 4
//	…       n     data       then zeros to a multiple of 4
func Encode(entries []Entry) ([]byte, error) {
	if err := check(entries); err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	var b bytes.Buffer
	for _, e := range entries {
		e.encode(&b)
	}
	Entry{Name: trailer}.encode(&b)
	pad(&b, blockSize)
	return b.Bytes(), nil
}

func (e Entry) encode(b *bytes.Buffer) {
	b.WriteString(magic)
	for _, v := range [...]uint32{
		0, e.Mode, 0, 0, 1, 0, uint32(len(e.Data)), 0, 0, e.Major, e.Minor, uint32(len(e.Name) + 1), 0,
	} {
		fmt.Fprintf(b, "%08X", v)
	}
	b.WriteString(e.Name)
	b.WriteByte(0)
	pad(b, 4)
	b.Write(e.Data)
	pad(b, 4)
}

func pad(b *bytes.Buffer, unit int) {
	b.Write(make([]byte, (unit-b.Len()%unit)%unit))
}

func check(entries []Entry) error {
	var errs []error
	dirs, seen := map[string]bool{".": true}, map[string]bool{}
	for i, e := range entries {
		if err := e.check(); err != nil {
			errs = append(errs, fmt.Errorf("entries[%d]: %w", i, err))
			continue
		}
		if seen[e.Name] {
			errs = append(errs, fmt.Errorf("entries[%d]: name %q stands twice", i, e.Name))
		}
		if !dirs[path.Dir(e.Name)] {
			errs = append(errs, fmt.Errorf("entries[%d]: no folder stands before %q", i, e.Name))
		}
		seen[e.Name] = true
		dirs[e.Name] = e.Mode&typeMask == TypeDir
	}
	return errors.Join(errs...)
}

func (e Entry) check() error {
	if e.Name == "" || e.Name == "." || e.Name == trailer || path.Clean("/" + e.Name)[1:] != e.Name || strings.ContainsRune(e.Name, 0) {
		return fmt.Errorf("name %q is not a plain relative path", e.Name)
	}
	if e.Mode&^(typeMask|permMask) != 0 {
		return fmt.Errorf("%s: mode %#o", e.Name, e.Mode)
	}
	switch e.Mode & typeMask {
	case TypeFile:
	case TypeDir, TypeChar:
		if len(e.Data) > 0 {
			return fmt.Errorf("%s: data in what is no regular file", e.Name)
		}
	default:
		return fmt.Errorf("%s: type %#o is not known", e.Name, e.Mode&typeMask)
	}
	if e.Mode&typeMask != TypeChar && (e.Major != 0 || e.Minor != 0) {
		return fmt.Errorf("%s: device number on what is no device", e.Name)
	}
	if uint64(len(e.Data)) > maxData {
		return fmt.Errorf("%s: %d bytes, more than the format holds", e.Name, len(e.Data))
	}
	return nil
}

// Parse reads an archive that Encode wrote, as it is or compressed by Compress.
// Errors name the offset in bytes, in the archive as it was before compression
// unless they say LZ4.
func Parse(archive []byte) ([]Entry, error) {
	if isLZ4(archive) {
		var err error
		if archive, err = Decompress(archive); err != nil {
			return nil, err
		}
	}
	entries, err := parse(archive)
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	again, err := Encode(entries)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(archive, again) {
		return nil, fmt.Errorf("initrd: offset %#x: not as this package encodes it", difference(archive, again))
	}
	return entries, nil
}

func difference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func parse(archive []byte) ([]Entry, error) {
	entries := []Entry{}
	for off := 0; ; {
		e, size, err := parseEntry(archive[off:])
		if err != nil {
			return nil, fmt.Errorf("offset %#x: %w", off, err)
		}
		if e.Name == trailer {
			return entries, nil
		}
		entries = append(entries, e)
		off += size
	}
}

// parseEntry reads the member at the start of b and returns its size. Offsets
// within the archive are multiples of 4, so padding can be counted from b.
func parseEntry(b []byte) (Entry, int, error) {
	if len(b) < headerSize {
		return Entry{}, 0, fmt.Errorf("%d bytes left, a header has %d", len(b), headerSize)
	}
	if string(b[:len(magic)]) != magic {
		return Entry{}, 0, fmt.Errorf("c_magic: %s, want %s", hex.EncodeToString(b[:len(magic)]), hex.EncodeToString([]byte(magic)))
	}
	var field [13]int
	for i := range field {
		at := len(magic) + 8*i
		v, err := strconv.ParseUint(string(b[at:at+8]), 16, 32)
		if err != nil {
			return Entry{}, 0, fmt.Errorf("header, offset %#x: %q is not a number", at, b[at:at+8])
		}
		field[i] = int(v)
	}
	dataSize, nameSize := field[6], field[11]
	if nameSize < 1 || nameSize > len(b)-headerSize {
		return Entry{}, 0, fmt.Errorf("c_namesize: %d, %d bytes left", nameSize, len(b)-headerSize)
	}
	data := align(headerSize + nameSize)
	if dataSize > len(b)-data {
		return Entry{}, 0, fmt.Errorf("c_filesize: %d, %d bytes left", dataSize, max(0, len(b)-data))
	}
	end := align(data + dataSize)
	if end > len(b) {
		return Entry{}, 0, errors.New("padding: cut off")
	}
	e := Entry{
		Name:  string(b[headerSize : headerSize+nameSize-1]),
		Mode:  uint32(field[1]),
		Major: uint32(field[9]),
		Minor: uint32(field[10]),
	}
	if dataSize > 0 {
		e.Data = bytes.Clone(b[data : data+dataSize])
	}
	return e, end, nil
}

func align(n int) int { return (n + 3) &^ 3 }
