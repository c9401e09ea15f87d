package stack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// makeStack writes a stack into a new folder.
func makeStack(t *testing.T) (dir string, s Stack) {
	t.Helper()
	dir = t.TempDir()
	s = Stack{MediaType: MediaType, Lock: strings.Repeat("a", 64), Cmdline: "console=ttyS0 quiet"}
	for _, name := range []string{Firmware, Kernel, Initrd, Agent} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("data of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Describe(dir, name, "test")
		if err != nil {
			t.Fatal(err)
		}
		s.Files = append(s.Files, f)
	}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, Manifest), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, s
}

func TestLoad(t *testing.T) {
	dir, want := makeStack(t)
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if f, ok := got.File(Kernel); !ok || f.Size != int64(len("data of "+Kernel)) {
		t.Errorf("%s: %+v, %v", Kernel, f, ok)
	}
	if f, ok := got.File("other"); ok || !cmp.Equal(f, File{}) {
		t.Errorf("a file that is not there: %+v", f)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(dir string) error
		errs []string
	}{
		{"changed bytes, two files", func(dir string) error {
			if err := os.WriteFile(filepath.Join(dir, Kernel), []byte("Data of "+Kernel), 0o600); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, Initrd), []byte("Data of "+Initrd), 0o600)
		}, []string{Kernel + ": SHA-256", Initrd + ": SHA-256"}},
		{"longer", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, Firmware), make([]byte, 99), 0o600)
		}, []string{Firmware + ": 99 bytes, the manifest says 15"}},
		{"missing file", func(dir string) error { return os.Remove(filepath.Join(dir, Agent)) }, []string{Agent + ": no such file"}},
		{"missing manifest", func(dir string) error { return os.Remove(filepath.Join(dir, Manifest)) }, []string{Manifest + ": no such file"}},
		{"huge manifest", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, Manifest), make([]byte, maxManifest+1), 0o600)
		}, []string{"more than 1048576 bytes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, _ := makeStack(t)
			if err := tt.edit(dir); err != nil {
				t.Fatal(err)
			}
			got, err := Load(dir)
			for _, want := range tt.errs {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want one with %q", err, want)
				}
			}
			if diff := cmp.Diff(Stack{}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	_, s := makeStack(t)
	for _, tt := range []struct {
		name string
		edit func(*Stack)
		err  string
	}{
		{"media type", func(s *Stack) { s.MediaType = "x" }, "mediaType"},
		{"lock", func(s *Stack) { s.Lock = "A" }, "lock"},
		{"NUL", func(s *Stack) { s.Cmdline = "a\x00b" }, "cmdline"},
		{"line feed", func(s *Stack) { s.Cmdline = "a\n" }, "cmdline"},
		{"path", func(s *Stack) { s.Files[3].Name = "../x" }, "files[3].name"},
		{"itself", func(s *Stack) { s.Files[3].Name = Manifest }, "files[3].name"},
		{"twice", func(s *Stack) { s.Files[3].Name = Kernel }, "stands twice"},
		{"size", func(s *Stack) { s.Files[0].Size = -1 }, "files[0].size"},
		{"hash", func(s *Stack) { s.Files[0].SHA256 = "" }, "files[0].sha256"},
		{"no stages", func(s *Stack) { s.Files[0].Stages = []Stage{} }, "files[0].stages: empty"},
		{"stage without a name", func(s *Stack) { s.Files[0].Stages = []Stage{{"", s.Lock}} }, "files[0].stages[0].name"},
		{"stage's hash", func(s *Stack) { s.Files[1].Stages = []Stage{{"a", s.Lock}, {"b", "B"}} }, "files[1].stages[1].sha256"},
		{"no kernel", func(s *Stack) { s.Files[1].Name = "other" }, "vmlinuz is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := s
			bad.Files = append([]File(nil), s.Files...)
			tt.edit(&bad)
			if b, err := bad.Encode(); err == nil || b != nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
		})
	}
	for _, data := range []string{"", "{}", "[]", `{"mediaType":"` + MediaType + `","other":1}`} {
		if got, err := Parse([]byte(data)); err == nil || !cmp.Equal(got, Stack{}) {
			t.Errorf("%q: %+v, %v", data, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	h := strings.Repeat("a", 64)
	file := func(name string) string {
		return `{"name":"` + name + `","size":1,"sha256":"` + h + `","source":"s"}`
	}
	f.Add([]byte(`{"mediaType":"` + MediaType + `","lock":"` + h + `","cmdline":"quiet","files":[` +
		file(Firmware) + "," + file(Kernel) + "," + file(Initrd) + `]}`))
	f.Add([]byte(`{"mediaType":"` + MediaType + `","lock":"` + h + `","cmdline":"quiet","files":[` +
		file(Firmware) + "," + file(Initrd) + `,{"name":"vmlinuz","size":1,"sha256":"` + h + `","source":"s","stages":[{"name":"root","sha256":"` + h + `"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			if !cmp.Equal(s, Stack{}) {
				t.Fatalf("%+v beside %v", s, err)
			}
			return
		}
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(b)
		if err != nil || !cmp.Equal(s, again) {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}
