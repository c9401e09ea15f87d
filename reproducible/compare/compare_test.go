package compare

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/kraudcloud/kattest/reproducible/initrd"
)

func archive(t testing.TB, entries ...initrd.Entry) []byte {
	t.Helper()
	data, err := initrd.Encode(entries)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func zstandard(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// legacy compresses as the kernel's build does.
func legacy(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// image is a bzImage around a compressed kernel.
func image(payload []byte) []byte {
	const code, before = 2 * 512, 64
	b := make([]byte, code+before)
	b[setupSects] = 1
	copy(b[headerMagic:], "HdrS")
	binary.LittleEndian.PutUint32(b[payloadOffset:], before)
	binary.LittleEndian.PutUint32(b[payloadLength:], uint32(len(payload)+4))
	b = append(b, payload...)
	return append(b, 1, 2, 3, 4, 'e', 'n', 'd')
}

// program is an ELF file: the test itself, and where its .rodata begins.
func program(t testing.TB) (data []byte, rodata uint64) {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(name); err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return data, f.Section(".rodata").Offset
}

func TestFiles(t *testing.T) {
	config := "#\n# Automatically generated file; DO NOT EDIT.\n# Linux 6\n#\nCONFIG_A=y\nCONFIG_S=\"a=b\"\n# CONFIG_B is not set\n"
	dev := initrd.Entry{Name: "dev", Mode: initrd.TypeDir | 0o755}
	file := func(name, data string) initrd.Entry {
		return initrd.Entry{Name: name, Mode: initrd.TypeFile | 0o755, Data: []byte(data)}
	}
	elfFile, rodata := program(t)
	changed := slices.Clone(elfFile)
	changed[rodata+0x123] ^= 0xff
	bytesOf := func(data []byte, at uint64) string { return octets(data, int(at)) }

	for _, tt := range []struct {
		name          string
		first, second []byte
		want          Difference
	}{
		{"bytes", []byte{0, 1, 2}, []byte{0, 1, 3}, Difference{nil, 2, "02", "03"}},
		{"a longer one", []byte{0, 1}, []byte{0, 1, 3}, Difference{nil, 2, ended, "03"}},
		{"text", []byte("one\ntwo\n"), []byte("one\ntoo\n"), Difference{nil, 5, `"two"`, `"too"`}},
		{"a long line", []byte(strings.Repeat("a", 999) + "b"), []byte(strings.Repeat("a", 999) + "c"), Difference{nil, 999, `"` + strings.Repeat("a", 60) + `b"`, `"` + strings.Repeat("a", 60) + `c"`}},
		{"of two kinds", archive(t, dev), []byte(config), Difference{nil, 0, "3037303730313030303030303030303030", "23"}},
		{"option", []byte(config), []byte(strings.Replace(config, "# CONFIG_B is not set", "CONFIG_B=y", 1)), Difference{[]string{"CONFIG_B"}, -1, "n", "y"}},
		{"option gone", []byte(config), []byte(strings.Replace(config, "CONFIG_A=y\n", "", 1)), Difference{[]string{"CONFIG_A"}, -1, present, absent}},
		{"option more", []byte(config), []byte(config + "CONFIG_C=m\n"), Difference{[]string{"CONFIG_C"}, -1, absent, present}},
		{"the comment alone", []byte(config), []byte(strings.Replace(config, "Linux 6", "Linux 7", 1)), Difference{nil, 55, `"# Linux 6"`, `"# Linux 7"`}},
		{"entry", archive(t, dev, file("init", "\x01one")), archive(t, dev, file("init", "\x01two")), Difference{[]string{"init"}, 1, "6f6e65", "74776f"}},
		{"entry's mode", archive(t, dev), archive(t, initrd.Entry{Name: "dev", Mode: initrd.TypeDir | 0o700}), Difference{[]string{"dev"}, -1, "mode 40755, device 0:0", "mode 40700, device 0:0"}},
		{"entry more", archive(t, dev), archive(t, dev, file("sh", "")), Difference{[]string{"sh"}, -1, absent, present}},
		{"section", elfFile, changed, Difference{[]string{"section .rodata"}, 0x123, bytesOf(elfFile, rodata+0x123), bytesOf(changed, rodata+0x123)}},
		{
			"section of a program in a packed initrd", zstandard(t, archive(t, file("init", string(elfFile)))), zstandard(t, archive(t, file("init", string(changed)))),
			Difference{[]string{"unpacked", "init", "section .rodata"}, 0x123, bytesOf(elfFile, rodata+0x123), bytesOf(changed, rodata+0x123)},
		},
		{
			"section of a kernel", image(legacy(t, elfFile)), image(legacy(t, changed)),
			Difference{[]string{"compressed kernel", "unpacked", "section .rodata"}, 0x123, bytesOf(elfFile, rodata+0x123), bytesOf(changed, rodata+0x123)},
		},
		{
			"what unpacks a kernel", image([]byte("payload")), bytes.Replace(image([]byte("payload")), []byte("end"), []byte("and"), 1),
			Difference{[]string{"behind the compressed kernel"}, 0, `"end"`, `"and"`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, differ := Files(tt.first, tt.second)
			if !differ {
				t.Fatal("no difference")
			}
			if tt.name == "of two kinds" {
				got.First, got.Second, tt.want.First, tt.want.Second = "", "", "", ""
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("difference (-want +got):\n%s", diff)
			}
			back, _ := Files(tt.second, tt.first)
			if back.Offset != got.Offset || !cmp.Equal(back.Path, got.Path) {
				t.Errorf("the other way round: %v", back)
			}
			if same, differ := Files(tt.first, bytes.Clone(tt.first)); differ {
				t.Errorf("from itself: %v", same)
			}
		})
	}
}

func TestString(t *testing.T) {
	for want, d := range map[string]Difference{
		"offset 0x10: 00, 01":                             {nil, 16, "00", "01"},
		"init, section .text: offset 0x1: ff, at its end": {[]string{"init", "section .text"}, 1, "ff", ended},
		"CONFIG_A: present, absent":                       {[]string{"CONFIG_A"}, -1, present, absent},
	} {
		if d.String() != want {
			t.Errorf("%q, want %q", d, want)
		}
	}
}

// Two files that differ have a difference, whatever they are, and it tells two
// things.
func FuzzFiles(f *testing.F) {
	dev := archive(f, initrd.Entry{Name: "dev", Mode: initrd.TypeDir | 0o755})
	elfFile := append([]byte(elf.ELFMAG), bytes.Repeat([]byte{2, 1, 1, 0}, 40)...)
	for _, seed := range [][]byte{
		dev, zstandard(f, dev), legacy(f, dev), image(legacy(f, dev)), elfFile, []byte("#\n# Automatically generated file; DO NOT EDIT.\nCONFIG_A=y\n"),
	} {
		f.Add(seed, dev)
		f.Add(seed, seed[:len(seed)-1])
		f.Add(seed, append(bytes.Clone(seed), 1))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		d, differ := Files(first, second)
		if differ == bytes.Equal(first, second) {
			t.Fatalf("differ: %v", differ)
		}
		if differ && (d.First == d.Second || len(d.String()) > 2000+len(first)+len(second)) {
			t.Fatalf("%v", d)
		}
	})
}
