package initrd

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

func compressed(t testing.TB, data []byte) []byte {
	t.Helper()
	frame, err := Compress(data)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// noise is what no compressor makes smaller.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails, by its documentation
	return b
}

var lz4Samples = map[string][]byte{
	"nothing":            {},
	"one byte":           {1},
	"zeros":              make([]byte, 4096),
	"noise":              noise(4096),
	"one block":          make([]byte, lz4Block),
	"one block and more": append(noise(lz4Block), "more"...),
}

func TestCompressRoundTrip(t *testing.T) {
	for name, data := range lz4Samples {
		got, err := Decompress(compressed(t, data))
		if err != nil || !bytes.Equal(data, got) {
			t.Errorf("%s: %d bytes became %d, %v", name, len(data), len(got), err)
		}
	}
}

// What the program lz4 unpacks, Linux does.
func TestAgainstLZ4(t *testing.T) {
	lz4, err := exec.LookPath("lz4")
	if err != nil {
		t.Skip("lz4 is not installed: the boots of internal/e2e alone show that Linux unpacks it")
	}
	for name, data := range lz4Samples {
		cmd := exec.Command(lz4, "-d", "-c")
		cmd.Stdin = bytes.NewReader(compressed(t, data))
		got, err := cmd.Output()
		if err != nil || !bytes.Equal(data, got) {
			t.Errorf("%s: %d bytes became %d, %v", name, len(data), len(got), err)
		}
	}
}

// A frame written by hand: a block of one token with four literals.
func TestDecompressBytes(t *testing.T) {
	frame := []byte("\x02\x21\x4c\x18" + "\x05\x00\x00\x00" + "\x40abcd")
	got, err := Decompress(frame)
	if err != nil || string(got) != "abcd" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDecompressRefuses(t *testing.T) {
	good := compressed(t, []byte(strings.Repeat("good", 100)))
	size := func(n uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[4:], n)
		return b
	}
	for name, c := range map[string]struct {
		frame []byte
		want  string
	}{
		"nothing":         {nil, "LZ4: offset 0x0: magic: , want 02214c18"},
		"magic":           {[]byte("07070100"), "LZ4: offset 0x0: magic: 30373037, want 02214c18"},
		"half a size":     {good[:6], "LZ4: offset 0x4: 2 bytes left, the size of a block has 4"},
		"size":            {size(0xffffffff), "LZ4: offset 0x4: a block of 4294967295 bytes"},
		"cut off":         {good[:len(good)-1], "LZ4: offset 0x4: a block of"},
		"empty block":     {append(bytes.Clone(good), 0, 0, 0, 0), "LZ4: offset 0x"},
		"no LZ4":          {[]byte("\x02\x21\x4c\x18" + "\x01\x00\x00\x00" + "\xf0"), "LZ4: offset 0x8: block: "},
		"other encoding":  {[]byte("\x02\x21\x4c\x18" + "\x05\x00\x00\x00\x40aaaa" + "\x05\x00\x00\x00\x40aaaa"), "not as this package compresses it"},
		"more than 8 MiB": {[]byte("\x02\x21\x4c\x18\x0b\x81\x00\x00\x1fa\x01\x00" + strings.Repeat("\xff", 0x8101) + "\x00\x50aaaaa"), "LZ4: offset 0x8: block: "},
		"after the block": {append(bytes.Clone(good), 'x'), "1 bytes left"},
	} {
		got, err := Decompress(c.frame)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		if got != nil {
			t.Errorf("%s: %d bytes with an error", name, len(got))
		}
	}
}

// A small file must not become a large one without end.
func TestDecompressIsBounded(t *testing.T) {
	data := make([]byte, lz4Block)
	block := compressed(t, data)[4:]
	frame := []byte(lz4Magic)
	for range maxUnpacked/lz4Block + 1 {
		frame = append(frame, block...)
	}
	if _, err := Decompress(frame); err == nil || !strings.Contains(err.Error(), "more than 268435456 bytes") {
		t.Errorf("error %v", err)
	}
}

func TestParseCompressed(t *testing.T) {
	archive, err := Encode(sample)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := Parse(compressed(t, archive))
	if err != nil || len(entries) != len(sample) {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if _, err := Parse(compressed(t, archive[1:])); err == nil || !strings.Contains(err.Error(), "initrd: offset 0x0: c_magic") {
		t.Errorf("error %v", err)
	}
}

func FuzzDecompress(f *testing.F) {
	for _, name := range []string{"nothing", "one byte", "zeros", "noise"} {
		f.Add(compressed(f, lz4Samples[name]))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		data, err := Decompress(frame)
		if err != nil {
			if data != nil {
				t.Errorf("data with the error %v", err)
			}
			return
		}
		if !bytes.Equal(frame, compressed(t, data)) {
			t.Error("compresses to other bytes")
		}
	})
}
