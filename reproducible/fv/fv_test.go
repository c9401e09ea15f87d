package fv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz/lzma"
)

// What follows makes images as edk2's tools do.

func parseGUID(t testing.TB, text string) []byte {
	t.Helper()
	var a uint32
	var b, c uint16
	var d []byte
	if _, err := fmt.Sscanf(strings.ReplaceAll(text, "-", " "), "%x %x %x", &a, &b, &c); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(strings.ReplaceAll(text[19:], "-", ""), "%x", &d); err != nil {
		t.Fatal(err)
	}
	g := binary.LittleEndian.AppendUint32(nil, a)
	g = binary.LittleEndian.AppendUint16(g, b)
	g = binary.LittleEndian.AppendUint16(g, c)
	return append(g, d...)
}

func put24(b []byte, n int) { b[0], b[1], b[2] = byte(n), byte(n>>8), byte(n>>16) }

func makeSection(kind byte, content []byte) []byte {
	s := make([]byte, sectionHeader, sectionHeader+len(content))
	put24(s, sectionHeader+len(content))
	s[3] = kind
	return append(s, content...)
}

func makeUI(name string) []byte {
	var text []byte
	for _, u := range append(utf16.Encode([]rune(name)), 0) {
		text = binary.LittleEndian.AppendUint16(text, u)
	}
	return makeSection(sectionUI, text)
}

func makeLZMA(t testing.TB, content []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	w, err := lzma.WriterConfig{SizeInHeader: true, Size: int64(len(content))}.NewWriter(&packed)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	head := append(parseGUID(t, lzmaGUID), 24, 0, 1, 0) // DataOffset and Attributes
	return makeSection(sectionGUIDDefined, append(head, packed.Bytes()...))
}

// makeFile makes a file of sections, or of plain content for a raw one.
func makeFile(t testing.TB, name string, kind byte, sections ...[]byte) []byte {
	t.Helper()
	f := append(parseGUID(t, name), 0, noChecksum, kind, 0, 0, 0, 0, 0)
	for _, s := range sections {
		f = append(f, make([]byte, align(len(f), 4)-len(f))...)
		f = append(f, s...)
	}
	put24(f[20:], len(f))
	f[16] = -sum8(append(bytes.Clone(f[:17]), f[18:23]...))
	f[23] = 0xf8
	return f
}

// makeVolume makes a volume of that name: its header, a pad file that holds the
// header's extension, files and free space.
func makeVolume(t testing.TB, name string, size int, files ...[]byte) []byte {
	t.Helper()
	v := make([]byte, 72)
	copy(v[16:], parseGUID(t, "8c8ce578-8a3d-4f1c-9935-896185c32dd3"))
	binary.LittleEndian.PutUint64(v[32:], uint64(size))
	copy(v[40:], volumeSignature)
	binary.LittleEndian.PutUint32(v[44:], erasePolarity)
	v[48], v[52], v[55] = 72, 72+fileHeader, 2
	sum := -sum16(v)
	binary.LittleEndian.PutUint16(v[50:], sum)
	ext := append(parseGUID(t, name), extHeader, 0, 0, 0)
	for _, f := range append([][]byte{makeFile(t, "ffffffff-ffff-ffff-ffff-ffffffffffff", filePad, ext)}, files...) {
		v = append(v, bytes.Repeat([]byte{0xff}, align(len(v), 8)-len(v))...)
		v = append(v, f...)
	}
	if len(v) > size {
		t.Fatalf("%d bytes in a volume of %d", len(v), size)
	}
	return append(v, bytes.Repeat([]byte{0xff}, size-len(v))...)
}

const (
	nameOfSec  = "763bed0d-de9f-48f5-81f1-3e90e1b1a015"
	nameOfDXE  = "7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1"
	nameOfMain = "48db5e17-707c-472d-91cd-1613e7ef51b0"
	one        = "11111111-2222-3333-4444-555555555555"
	two        = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
)

// image has a gap, a volume with a compressed one inside, and one that starts up.
func image(t testing.TB, module string) []byte {
	t.Helper()
	dxe := makeVolume(t, nameOfDXE, 8192,
		makeFile(t, one, 0x07, makeSection(0x13, []byte{6, 8}), makeSection(0x10, []byte(module)), makeUI("Driver")),
		makeFile(t, one, 0x07, makeSection(0x10, []byte("twin")), makeUI("Driver")))
	main := makeFile(t, two, 0x0b, makeLZMA(t, append(makeSection(0x19, make([]byte, 8)), makeSection(sectionVolume, dxe)...)))
	sec := makeFile(t, "1ba0062e-c779-4582-8566-336ae8f78f09", fileRaw, []byte("reset vector"))
	return concat(bytes.Repeat([]byte{0xee}, 4096), makeVolume(t, nameOfMain, 8192, main), makeVolume(t, nameOfSec, 4096, sec))
}

func concat(all ...[]byte) []byte { return bytes.Join(all, nil) }

func open(t testing.TB, image []byte) []Part {
	t.Helper()
	parts, err := Open(image)
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

func TestOpen(t *testing.T) {
	data := image(t, "module")
	var got []string
	for _, p := range open(t, data) {
		got = append(got, fmt.Sprintf("%s %#x+%#x %v", strings.ReplaceAll(p.Path, two, "two"), p.Offset, len(p.Data), p.Whole))
		if p.Inside == "" && !bytes.Equal(p.Data, data[p.Offset:p.Offset+len(p.Data)]) {
			t.Errorf("%s holds other bytes than the image at %#x", p.Path, p.Offset)
		}
		if p.Inside != "" && p.Inside != "FVMAIN_COMPACT/"+two+"/lzma" {
			t.Errorf("%s is inside %s", p.Path, p.Inside)
		}
	}
	want := []string{
		"gap 0x0+0x1000 false",
		"FVMAIN_COMPACT 0x1000+0x2000 true",
		"FVMAIN_COMPACT/header 0x1000+0x74 false",
		"FVMAIN_COMPACT/two 0x1078+SIZE true",
		"FVMAIN_COMPACT/two/header 0x1078+0x18 false",
		"FVMAIN_COMPACT/two/lzma 0x1090+SIZE true",
		"FVMAIN_COMPACT/two/lzma/raw 0x0+0xc false",
		"FVMAIN_COMPACT/two/lzma/volume section 0xc+0x4 false",
		"FVMAIN_COMPACT/two/lzma/DXEFV 0x10+0x2000 true",
		"FVMAIN_COMPACT/two/lzma/DXEFV/header 0x10+0x74 false",
		"FVMAIN_COMPACT/two/lzma/DXEFV/Driver 0x88+0x3e true",
		"FVMAIN_COMPACT/two/lzma/DXEFV/Driver/header 0x88+0x18 false",
		"FVMAIN_COMPACT/two/lzma/DXEFV/Driver/DXE depex 0xa0+0x6 false",
		"FVMAIN_COMPACT/two/lzma/DXEFV/Driver/PE32 0xa8+0xa false",
		"FVMAIN_COMPACT/two/lzma/DXEFV/Driver/UI 0xb4+0x12 false",
		"FVMAIN_COMPACT/two/lzma/DXEFV/Driver#2 0xc8+0x32 true",
		"FVMAIN_COMPACT/two/lzma/DXEFV/Driver#2/header 0xc8+0x18 false",
		"FVMAIN_COMPACT/two/lzma/DXEFV/Driver#2/PE32 0xe0+0x8 false",
		"FVMAIN_COMPACT/two/lzma/DXEFV/Driver#2/UI 0xe8+0x12 false",
		"FVMAIN_COMPACT/two/lzma/DXEFV/free space 0x100+0x1f10 false",
		"FVMAIN_COMPACT/free space SIZE false",
		"SECFV 0x3000+0x1000 true",
		"SECFV/header 0x3000+0x74 false",
		"SECFV/volume top 0x3078+0x24 true",
		"SECFV/volume top/header 0x3078+0x18 false",
		"SECFV/volume top/data 0x3090+0xc false",
		"SECFV/free space 0x30a0+0xf60 false",
	}
	for i, w := range want { // how well the library compresses is its own affair
		if at := strings.Index(w, "SIZE"); at >= 0 && i < len(got) && strings.HasPrefix(got[i], w[:at]) {
			want[i] = got[i]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
}

func TestCompare(t *testing.T) {
	data := image(t, "module")
	flip := func(at int) []byte {
		other := bytes.Clone(data)
		other[at] ^= 0xff
		return other
	}
	const inside = "FVMAIN_COMPACT/" + two + "/lzma"
	for _, tt := range []struct {
		name  string
		other []byte
		want  []string
	}{
		{"the same", data, nil},
		{"gap", flip(7), []string{"gap: offset 0x7: 0xee and 0x11"}},
		{"free space", flip(len(data) - 1), []string{"SECFV/free space: offset 0xf5f: 0xff and 0x00"}},
		{"content of a file", flip(0x3095), []string{"SECFV/volume top/data: offset 0x5: 0x20 and 0xdf"}},
		{"fill between files", flip(0x3075), []string{"SECFV: offset 0x75: 0xff and 0x00"}},
		{"module", image(t, "module"[:5]+"E"), []string{inside + "/DXEFV/Driver/PE32: offset 0x9: 0x65 and 0x45"}},
		{"longer module", image(t, "modules"), []string{
			inside + "/DXEFV/Driver/PE32: offset 0x0: 0x0a and 0x0b; 10 and 11 bytes",
			inside + "/DXEFV/Driver#2: only in the first image, 50 bytes",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, d := range Compare(open(t, data), open(t, tt.other)) {
				got = append(got, d.String())
			}
			if tt.name == "longer module" {
				// What stands behind it may have moved: the module is what comes first.
				got, tt.want = got[:1], tt.want[:1]
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompareTellsOfOneSide(t *testing.T) {
	a := open(t, makeVolume(t, nameOfSec, 4096, makeFile(t, one, 0x07, makeSection(0x10, []byte("x")), makeUI("A"))))
	b := open(t, makeVolume(t, nameOfSec, 4096, makeFile(t, one, 0x07, makeSection(0x10, []byte("x")), makeUI("B"))))
	var got []string
	for _, d := range Compare(a, b) {
		got = append(got, d.String())
	}
	want := []string{"SECFV/A: only in the first image, 40 bytes", "SECFV/B: only in the second image, 40 bytes"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
}

func TestOpenRefuses(t *testing.T) {
	good := image(t, "module")
	with := func(at int, values ...byte) []byte {
		bad := bytes.Clone(good)
		copy(bad[at:], values)
		return bad
	}
	// A volume's sum is over all of its header: mend gives it the right one.
	mend := func(bad []byte, at int) []byte {
		bad[at+50], bad[at+51] = 0, 0
		binary.LittleEndian.PutUint16(bad[at+50:], -sum16(bad[at:at+72]))
		return bad
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"too large", make([]byte, maxImage+1), "more than 67108864"},
		{"volume cut off", good[:len(good)-1], "offset 0x3020: FvLength: 0x1000 bytes, and 0xfff are there"},
		{"volume's sum", with(0x3000, 1), "offset 0x3032: Checksum: the header's words add up to 0x1, want 0"},
		{"volume's revision", with(0x3037, 1), "offset 0x3037: Revision: 1, want 2"},
		{"volume's header", with(0x3030, 8), "offset 0x3030: HeaderLength: 0x8"},
		{"volume's header beyond", with(0x3030, 0, 0xf0), "offset 0x3030: HeaderLength: 0xf000"},
		{"extension beyond", mend(with(0x3034, 0xf0, 0x0f), 0x3000), "offset 0x3034: ExtHeaderOffset: 0xff0"},
		{"extension's size", with(0x3070, 0xff, 0xff), "offset 0x3070: ExtHeaderSize: 0xffff"},
		{"file's sum", with(0x3078, 0), "SECFV: offset 0x3088: IntegrityCheck.Header: "},
		{"file's size", with(0x308c, 0xff, 0xff), "SECFV: offset 0x308c: Size: 0xffff bytes, and 0xf88 are there"},
		{"file's checksum", with(0x3089, 0), "SECFV: offset 0x3089: IntegrityCheck.File: 0x0 of 1ba0062e-"},
		{"section's size", with(0x1090, 0xff, 0xfe), "FVMAIN_COMPACT/" + two + ": offset 0x1090: section: Size: "},
		{"guided section's offset", with(0x10a4, 3), "offset 0x10a4: guided section: DataOffset: 0x3"},
		{"lzma's properties", with(0x10a8, 0xff), "offset 0x10a8: LZMA: "},
		{"lzma's size", with(0x10ad, 0, 0, 0, 0x10), "offset 0x10a8: LZMA: 268435456 bytes: the image unpacks to more than 134217728"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parts, err := Open(tt.data)
			if parts != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%d parts, error %v, want %q", len(parts), err, tt.want)
			}
		})
	}
}

// An image of images ends in an error, not in a deep stack.
func TestOpenRefusesDepth(t *testing.T) {
	data := makeVolume(t, nameOfDXE, 1<<12)
	for size := 1 << 13; size <= 1<<22; size *= 2 {
		data = makeVolume(t, nameOfDXE, size, makeFile(t, one, 0x0b, makeSection(sectionVolume, data)))
	}
	if parts, err := Open(data); parts != nil || err == nil || !strings.Contains(err.Error(), "deeper than 12") {
		t.Errorf("%d parts, error %v", len(parts), err)
	}
}

func TestNamesArePlain(t *testing.T) {
	data := makeVolume(t, nameOfSec, 4096, makeFile(t, one, 0x07, makeUI("a/b#2 \x1b[31mé\n☠")))
	var got []string
	for _, p := range open(t, data) {
		got = append(got, p.Path)
	}
	want := []string{"SECFV", "SECFV/header", "SECFV/a_b_2__[31mé__", "SECFV/a_b_2__[31mé__/header", "SECFV/a_b_2__[31mé__/UI", "SECFV/free space"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

func FuzzOpen(f *testing.F) {
	good := image(f, "module")
	f.Add(good)
	f.Add(makeVolume(f, nameOfSec, 4096))
	f.Add([]byte("no image"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parts, err := Open(data)
		if err != nil {
			if parts != nil {
				t.Errorf("an error and %d parts", len(parts))
			}
			return
		}
		// What is outermost is the image, byte for byte.
		var again []byte
		seen := map[string]bool{}
		for _, p := range parts {
			if parent(p.Path) == "" {
				again = append(again, p.Data...)
			}
			if seen[p.Path] {
				t.Errorf("%s stands twice", p.Path)
			}
			seen[p.Path] = true
		}
		if !bytes.Equal(again, data) {
			t.Errorf("%d bytes came of %d", len(again), len(data))
		}
		if d := Compare(parts, parts); d != nil {
			t.Errorf("it differs from itself: %v", d)
		}
	})
}
