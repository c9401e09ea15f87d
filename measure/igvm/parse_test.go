package igvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func open(file []byte) (*File, error) { return Open(bytes.NewReader(file), int64(len(file))) }

func TestOpen(t *testing.T) {
	f := mustOpen(t, version2().build())
	if f.FormatVersion() != 2 {
		t.Errorf("version %d, want 2", f.FormatVersion())
	}
	if diff := cmp.Diff([]Platform{{PlatformNative, native}, {PlatformSNP, snp}, {PlatformVSM, vsm}}, f.Platforms()); diff != "" {
		t.Error(diff)
	}
	if p, ok := f.Policy(); p != 0x30000 || !ok {
		t.Errorf("policy %#x, %v, want 0x30000", p, ok)
	}
	other := (&builder{version: 1}).platform(snp, 2).platform(vsm, 1).policy(vsm, 5).data(snp, first, 1)
	for _, b := range []*builder{free(), other} {
		if _, ok := mustOpen(t, b.build()).Policy(); ok {
			t.Error("a policy, of a file without one for SEV-SNP")
		}
	}
}

func TestIs(t *testing.T) {
	if !Is(plain().build()) || Is([]byte("IGV")) || Is([]byte("MVGI")) {
		t.Error("Is")
	}
}

// Each file is wrong in one thing. The error names the header, the field and its
// bytes; the file is nil.
func TestOpenRefuses(t *testing.T) {
	edit := func(b *builder, at, size int, value uint64) []byte {
		file := b.build()
		put(at, size, value)(file)
		if at < 0x14 || at >= 0x18 {
			reseal(file)
		}
		return file
	}
	// last changes bytes of the last header's content.
	last := func(b *builder, at, size int, value uint64) []byte {
		h := &b.headers[len(b.headers)-1]
		h.body = bytes.Clone(h.body)
		put(at, size, value)(h.body)
		return b.build()
	}
	head := func() *builder { return (&builder{version: 1}).platform(snp, 2).data(snp, first, 1) }
	page := func(change ...any) *builder {
		return (&builder{version: 1}).platform(snp, 2).data(snp, 0x1000, 1).add(0x302, change...)
	}
	for _, tt := range []struct {
		name string
		file []byte
		err  string
	}{
		{"empty", nil, "fixed header: the file has 0 bytes, fewer than the header's 24"},
		{"short", plain().build()[:23], "the file has 23 bytes"},
		{"magic", edit(plain(), 0, 4, 0), `magic (bytes 0x0 to 0x3): "\x00\x00\x00\x00", want "IGVM"`},
		{"version", edit(plain(), 4, 4, 3), "format version (bytes 0x4 to 0x7): 3, want 1 or 2"},
		{"header offset", edit(plain(), 8, 4, 32), "variable header offset (bytes 0x8 to 0xb): 0x20, want 0x18"},
		{"too many headers", edit(plain(), 12, 4, MaxHeaders+8), "variable header size (bytes 0xc to 0xf): 4194312 bytes, more than 4194304"},
		{"headers beyond the file", edit(plain(), 12, 4, 1<<20), "leaves none of the file's"},
		{"no file data", (&builder{version: 1}).platform(snp, 2).build(), "leaves none of the file's 48 for file data"},
		{"total size", edit(plain(), 16, 4, 5), "total file size (bytes 0x10 to 0x13): 5, and the file has"},
		{"checksum", edit(plain(), 20, 4, 0), "checksum (bytes 0x14 to 0x17): 0x00000000, and the headers' CRC-32 is 0x"},
		{"architecture", edit(version2(), 0x18, 4, 2), "architecture (bytes 0x18 to 0x1b): 2, want 0 (x64) or 1"},
		{"AArch64", edit(version2(), 0x18, 4, 1), "architecture (bytes 0x18 to 0x1b): AArch64, which has no SEV-SNP"},
		{"page size", edit(version2(), 0x1c, 4, 0x10000), "page size (bytes 0x1c to 0x1f): 65536, want 4096"},
		{"no platform", (&builder{version: 1}).data(snp, first, 1).build(), "no SUPPORTED_PLATFORM header"},

		{"unknown type", head().add(0x3ff, uint64(0)).build(), "header 2 (type 0x3ff at 0x50): type (bytes 0x50 to 0x53): 0x3ff is not known"},
		{"type 0", head().add(0, uint64(0)).build(), "0x0 is not known"},
		{"optional type", head().add(1<<31|0x3ff, uint64(0)).build(), "0x800003ff is an optional one"},
		{"length", head().add(0x307, uint64(0), uint64(0)).build(), "header 2 (VP_COUNT_PARAMETER at 0x50): length (bytes 0x54 to 0x57): 16, want 8"},
		{"header cut off", edit(head(), 12, 4, 40), "header 1 (PAGE_DATA at 0x30): 32 bytes, and 16 are left of the headers"},
		{"stray bytes", edit((&builder{version: 1}).platform(snp, 2).page(snp, 0, 0, 0, nil).data(snp, first, 1), 12, 4, 60), "header 2 (type 0x0 at 0x50): 4 stray bytes"},
		{"padding", func() []byte {
			file := free().context(snp, 0xfffffffff000, 0, vmsa()).build()
			file[0x50+8+20] = 1
			reseal(file)
			return file
		}(), "header 2 (VP_CONTEXT at 0x50): padding (bytes 0x6c to 0x6f): is reserved and not zero: 01000000"},
		{"section order", head().policy(snp, 0).build(), "header 2 (GUEST_POLICY at 0x50): stands behind headers of a later section"},

		{"two bits", (&builder{version: 1}).platform(3, 2).data(snp, first, 1).build(), "header 0 (SUPPORTED_PLATFORM at 0x18): compatibility mask (bytes 0x20 to 0x23): 0x3, want one bit"},
		{"bit taken", (&builder{version: 1}).platform(1, 2).platform(1, 1).data(snp, first, 1).build(), "0x1 is another platform's"},
		{"platform twice", (&builder{version: 1}).platform(1, 2).platform(2, 2).data(snp, first, 1).build(), "platform type (bytes 0x3d to 0x3d): SEV-SNP is given twice"},
		{"platform unknown", (&builder{version: 1}).platform(1, 7).data(snp, first, 1).build(), "7 is not one of x64's"},
		{"VTL", edit(plain(), 0x24, 1, 1), "highest VTL (bytes 0x24 to 0x24): 1, want 0 or 2"},
		{"platform version", edit(plain(), 0x26, 2, 2), "platform version (bytes 0x26 to 0x27): 2, want 1"},
		{"boundary", edit(version2(), 0x30, 8, 1), "shared GPA boundary (bytes 0x30 to 0x37): 0x1, want 0 for native"},
		{"two policies", (&builder{version: 1}).platform(snp, 2).policy(snp, 1).policy(snp, 2).data(snp, first, 1).build(), "a second one for SEV-SNP"},
		{"policy's reserved", edit(shared(), 0x44, 4, 1), "reserved (bytes 0x44 to 0x47)"},

		{"page unaligned", last(head(), 0, 8, 0x10001), "header 1 (PAGE_DATA at 0x30): GPA (bytes 0x38 to 0x3f): 0x10001 is not a multiple"},
		{"page too high", last(head(), 0, 8, 1<<52), "reach beyond 52 bits"},
		{"huge page unaligned", last(head(), 16, 4, 1), "is not a multiple of the page's size, 2097152"},
		{"huge page too high", page(uint64(1<<52), uint32(snp), uint32(0), uint32(1), uint32(0)).build(), "reach beyond"},
		{"flags", last(head(), 16, 4, 8), "flags (bytes 0x48 to 0x4b): 0x8 has reserved bits 0x8 set"},
		{"data type", last(head(), 20, 2, 4), "data type (bytes 0x4c to 0x4d): 4 is not known"},
		{"page's reserved", last(head(), 22, 2, 1), "reserved (bytes 0x4e to 0x4f)"},
		{"data in the headers", page(uint64(0), uint32(snp), uint32(0x40), uint32(0), uint32(0)).build(), "header 2 (PAGE_DATA at 0x50): file offset (bytes 0x64 to 0x67): 0x40: 4096 bytes from there are not within the file data, 0x70 to 0x106f"},
		{"data beyond the file", page(uint64(0), uint32(snp), uint32(0x71), uint32(0), uint32(0)).build(), "file offset"},
		{"data far beyond the file", page(uint64(0), uint32(snp), ^uint32(0), uint32(0), uint32(0)).build(), "file offset"},

		{"area of nothing", head().area(0, 0).build(), "header 2 (PARAMETER_AREA at 0x50): number of bytes (bytes 0x58 to 0x5f): 0 is not a multiple"},
		{"area unaligned", head().area(0, 4097).build(), "4097 is not"},
		{"area too large", head().area(0, 1<<63).build(), "is not a multiple of 4096 between that and 4 GiB"},
		{"area twice", head().area(0, 4096).area(0, 4096).build(), "parameter area index (bytes 0x78 to 0x7b): 0 is another area's"},
		{"area's data", last(head().area(0, 8192), 12, 4, 0x68), "file offset"},
		{"insert of no area", head().insert(snp, 0, 1).build(), "there is no area 1 before this header"},
		{"insert twice", head().area(1, 4096).insert(snp, 0, 1).insert(snp, 0x1000, 1).build(), "area 1 was inserted before"},
		{"insert unaligned", head().area(1, 4096).insert(vsm, 5, 1).build(), "0x5 is not a multiple"},
		{"parameter in no area", head().parameter(0x307, 3, 0).build(), "there is no area 3"},
		{"parameter after its insert", head().area(1, 4096).insert(snp, 0, 1).parameter(0x308, 1, 0).build(), "was inserted before"},
		{"parameter beyond its area", head().area(1, 4096).parameter(0x312, 1, 4093).build(), "byte offset (bytes 0x74 to 0x77): 0xffd leaves no place"},
		{"too many pages", head().area(1, 1<<32).insert(snp, 0, 1).build(), "more than 4 GiB of pages"},
		{"required memory unaligned", head().required(snp, 1, 4096).build(), "GPA"},
		{"required memory of a part", head().required(snp, 0, 1).build(), "number of bytes (bytes 0x64 to 0x67): 1 is not"},

		{"context of two platforms", free().context(snp|vsm, 0, 0, vmsa()).build(), "compatibility mask (bytes 0x60 to 0x63): 0x3, want one platform's"},
		{"context of none", free().context(0, 0, 0, vmsa()).build(), "0x0, want one platform's"},
		{"context twice", two().context(snp, 0, 1, vmsa()).build(), "vCPU 1 has a context already"},
		{"context without data", free().context(snp, 0, 0, nil).build(), "file offset (bytes 0x64 to 0x67): 0x0"},
		{"context unaligned", free().context(snp, 1, 0, vmsa()).build(), "GPA"},
		{"context's reserved", last(free().context(snp, 0, 0, vmsa()), 18, 2, 1), "reserved"},

		{"two ID blocks", plain().sign(t, plainLD(t), 0x30000, false).sign(t, plainLD(t), 0x30000, false).build(), "a second ID block"},
		{"ID block's version", last(plain().sign(t, plainLD(t), 0x30000, false), 0x58, 4, 2), "VERSION"},
		{"ID block's reserved", last(plain().sign(t, plainLD(t), 0x30000, false), 5, 1, 1), "reserved"},
		{"ID key's algorithm", last(plain().sign(t, plainLD(t), 0x30000, false), 0x60, 4, 2), "ID_KEY_ALGO"},
		{"ID key's curve", last(plain().sign(t, plainLD(t), 0x30000, false), 0xf8, 4, 1), "CURVE"},
		{"author said and missing", last(plain().sign(t, plainLD(t), 0x30000, false), 4, 1, 1), "author key enabled"},
		{"author there and unsaid", last(plain().sign(t, plainLD(t), 0x30000, true), 4, 1, 0), "author key enabled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := open(tt.file)
			format := (*FormatError)(nil)
			if !errors.As(err, &format) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, want %q", err, tt.err)
			}
			if f != nil {
				t.Error("a file beside the error")
			}
		})
	}
}

// What the reader says is passed on.
func TestReadErrors(t *testing.T) {
	file := plain().build()
	for _, n := range []int{10, 100, len(file) - 1} { // fixed header, headers, data
		_, err := Open(bytes.NewReader(file[:n]), int64(len(file)))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: %v, want an unexpected EOF", n, len(file), err)
		}
	}
	broken := errors.New("broken")
	_, err := Open(readerAt{bytes.NewReader(file), iotest.ErrReader(broken)}, int64(len(file)))
	if !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
	if _, err := Open(bytes.NewReader(file), -1); err == nil {
		t.Error("a negative size: no error")
	}
}

// readerAt fails beyond the first 4 KiB.
type readerAt struct {
	io.ReaderAt
	fail io.Reader
}

func (r readerAt) ReadAt(b []byte, offset int64) (int, error) {
	if offset >= 4096 {
		return r.fail.Read(b)
	}
	return r.ReaderAt.ReadAt(b, offset)
}

// No byte of the file data is read twice, though headers name it twice.
func TestReadsOnce(t *testing.T) {
	file := plain().build()
	count := &counter{r: bytes.NewReader(file), start: int64(binary.LittleEndian.Uint32(file[12:])) + 24, seen: map[int64]int{}}
	if _, err := Open(count, int64(len(file))); err != nil {
		t.Fatal(err)
	}
	for offset, n := range count.seen {
		if n != 1 {
			t.Errorf("%d times read: the page at %#x", n, offset)
		}
	}
	// The data of vsm alone is not read; all else is.
	if want := (int64(len(file)) - count.start) / 4096; int64(len(count.seen)) != want-1 {
		t.Errorf("%d pages read, want %d", len(count.seen), want-1)
	}
}

type counter struct {
	r     io.ReaderAt
	start int64
	seen  map[int64]int
}

func (c *counter) ReadAt(b []byte, offset int64) (int, error) {
	if offset >= c.start {
		c.seen[offset]++
	}
	return c.r.ReadAt(b, offset)
}
