package initrd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var sample = []Entry{
	{Name: "dev", Mode: TypeDir | 0o755},
	{Name: "dev/null", Mode: TypeChar | 0o666, Major: 1, Minor: 3},
	{Name: "etc", Mode: TypeDir | 0o700},
	{Name: "etc/motd", Mode: TypeFile | 0o644, Data: []byte("hello\n")},
	{Name: "empty", Mode: TypeFile | 0o600},
	{Name: "init", Mode: TypeFile | 0o755, Data: []byte("#!/bin/sh\n")},
}

// One member written by hand from the byte table.
func TestEncodeBytes(t *testing.T) {
	got, err := Encode([]Entry{{Name: "init", Mode: TypeFile | 0o755, Data: []byte("abcde")}})
	if err != nil {
		t.Fatal(err)
	}
	want := "070701" +
		"00000000" + "000081ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000000" +
		"init\x00" + "\x00" + "abcde" + "\x00\x00\x00" +
		"070701" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "0000000B" + "00000000" +
		"TRAILER!!!\x00" + "\x00\x00\x00"
	want += strings.Repeat("\x00", 512-len(want))
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
}

// The same archive as GNU cpio writes of the same files, but for the inode
// numbers, owners and times that a real file system adds.
func TestAgainstCpio(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("GNU cpio is not installed: the hand-written bytes of TestEncodeBytes alone are compared")
	}
	archive, err := Encode(sample)
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command(cpio, "--list", "--verbose", "--numeric-uid-gid", "--quiet")
	list.Stdin = bytes.NewReader(archive)
	list.Env = []string{"LC_ALL=C", "TZ=UTC"}
	out, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	var got [][]string
	for line := range strings.Lines(string(out)) {
		got = append(got, strings.Fields(line))
	}
	want := [][]string{
		{"drwxr-xr-x", "1", "0", "0", "0", "Jan", "1", "1970", "dev"},
		{"crw-rw-rw-", "1", "0", "0", "1,", "3", "Jan", "1", "1970", "dev/null"},
		{"drwx------", "1", "0", "0", "0", "Jan", "1", "1970", "etc"},
		{"-rw-r--r--", "1", "0", "0", "6", "Jan", "1", "1970", "etc/motd"},
		{"-rw-------", "1", "0", "0", "0", "Jan", "1", "1970", "empty"},
		{"-rwxr-xr-x", "1", "0", "0", "10", "Jan", "1", "1970", "init"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cpio's list (-want +got):\n%s", diff)
	}

	dir := t.TempDir()
	extract := exec.Command(cpio, "--extract", "--quiet", "etc*", "init")
	extract.Stdin, extract.Dir = bytes.NewReader(archive), dir
	if out, err := extract.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for name, want := range map[string]string{"etc/motd": "hello\n", "init": "#!/bin/sh\n"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for name, entries := range map[string][]Entry{"none": {}, "sample": sample} {
		archive, err := Encode(entries)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(archive)%512 != 0 {
			t.Errorf("%s: %d bytes", name, len(archive))
		}
		got, err := Parse(archive)
		if diff := cmp.Diff(entries, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	file := func(name string) Entry { return Entry{Name: name, Mode: TypeFile | 0o644} }
	for name, c := range map[string]struct {
		entries []Entry
		want    string
	}{
		"empty name":     {[]Entry{file("")}, `name "" is not a plain`},
		"absolute":       {[]Entry{file("/init")}, `name "/init" is not a plain`},
		"upwards":        {[]Entry{file("../init")}, `name "../init" is not a plain`},
		"dot":            {[]Entry{file(".")}, `name "." is not a plain`},
		"NUL":            {[]Entry{file("a\x00b")}, `name "a\x00b" is not a plain`},
		"trailer":        {[]Entry{file("TRAILER!!!")}, `name "TRAILER!!!" is not a plain`},
		"twice":          {[]Entry{file("a"), file("a")}, `entries[1]: name "a" stands twice`},
		"no folder":      {[]Entry{file("a/b")}, `entries[0]: no folder stands before "a/b"`},
		"file as folder": {[]Entry{file("a"), file("a/b")}, `no folder stands before "a/b"`},
		"type":           {[]Entry{{Name: "l", Mode: 0o120777}}, `l: type 0120000 is not known`},
		"no type":        {[]Entry{{Name: "l", Mode: 0o644}}, `l: type 0 is not known`},
		"mode bits":      {[]Entry{{Name: "l", Mode: 1<<20 | TypeFile}}, `l: mode 04100000`},
		"folder's data":  {[]Entry{{Name: "d", Mode: TypeDir, Data: []byte{1}}}, `d: data in what is no regular file`},
		"file's device":  {[]Entry{{Name: "f", Mode: TypeFile, Minor: 1}}, `f: device number on what is no device`},
	} {
		got, err := Encode(c.entries)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		if got != nil {
			t.Errorf("%s: %d bytes with an error", name, len(got))
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := Encode(sample)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(offset int, with string) []byte {
		b := bytes.Clone(good)
		copy(b[offset:], with)
		return b
	}
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"nothing":      {nil, "offset 0x0: 0 bytes left, a header has 110"},
		"magic":        {changed(0, "070702"), "offset 0x0: c_magic: 303730373032, want 303730373031"},
		"no number":    {changed(0x0e, "0000g1ED"), `offset 0x0: header, offset 0xe: "0000g1ED" is not a number`},
		"name size":    {changed(0x5e, "FFFFFFFF"), "offset 0x0: c_namesize: 4294967295"},
		"no name":      {changed(0x5e, "00000000"), "offset 0x0: c_namesize: 0"},
		"data size":    {changed(0x36, "FFFFFFFF"), "offset 0x0: c_filesize: 4294967295"},
		"time":         {changed(0x2e, "00000001"), "offset 0x35: not as this package encodes it"},
		"owner":        {changed(0x16, "000003E8"), "offset 0x1b: not as this package encodes it"},
		"lower case":   {changed(0x0e, "000041ed"), "offset 0x14: not as this package encodes it"},
		"name's end":   {changed(0x6e+3, "x"), "offset 0x71: not as this package encodes it"},
		"name padding": {changed(0x6e+5, "x"), "offset"},
		"cut off":      {good[:len(good)-512], "bytes left"},
		"short tail":   {good[:len(good)-1], "not as this package encodes it"},
		"longer":       {append(bytes.Clone(good), 0), "not as this package encodes it"},
	} {
		got, err := Parse(c.archive)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		if got != nil {
			t.Errorf("%s: %d entries with an error", name, len(got))
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, entries := range [][]Entry{nil, sample, sample[:1]} {
		archive, err := Encode(entries)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive)
		compressed, err := Compress(archive)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(compressed)
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		entries, err := Parse(archive)
		if err != nil {
			if entries != nil {
				t.Errorf("entries with the error %v", err)
			}
			return
		}
		again, err := Encode(entries)
		if err == nil && isLZ4(archive) {
			again, err = Compress(again)
		}
		if err != nil || !bytes.Equal(archive, again) {
			t.Errorf("encodes to other bytes: %v", err)
		}
		reparsed, err := Parse(again)
		if diff := cmp.Diff(entries, reparsed, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%v (-first +second):\n%s", err, diff)
		}
	})
}
