package wholefile_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/internal/wholefile"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestWrite(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	for _, content := range []string{"one", "another"} {
		if err := wholefile.Write(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if all := names(t, dir); len(all) != 1 {
		t.Errorf("left behind: %v", all)
	}
}

func TestFillThatFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := wholefile.Write(file, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err := wholefile.Fill(file, 0o600, func(w io.Writer) error {
		_, err := w.Write([]byte("half"))
		return errors.Join(err, boom)
	})
	if !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "before" {
		t.Errorf("%q, %v", got, err)
	}
	if all := names(t, dir); len(all) != 1 {
		t.Errorf("left behind: %v", all)
	}
	if err := wholefile.Write(filepath.Join(dir, "nowhere", "file"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
