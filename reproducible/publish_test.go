package reproducible

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure/stack"
)

// parts writes a stack's files somewhere and returns them with their manifest.
func parts(t *testing.T, kernel string) (stack.Stack, map[string]string) {
	t.Helper()
	s := stack.Stack{MediaType: stack.MediaType, Lock: strings.Repeat("ab", 32), Cmdline: Cmdline}
	files := map[string]string{}
	dir := t.TempDir()
	for _, name := range []string{stack.Firmware, stack.Kernel, stack.Initrd, stack.Agent} {
		data := name
		if name == stack.Kernel {
			data = kernel
		}
		files[name] = filepath.Join(dir, name)
		if err := os.WriteFile(files[name], []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := stack.Describe(dir, name, "a test")
		if err != nil {
			t.Fatal(err)
		}
		s.Files = append(s.Files, f)
	}
	return s, files
}

// names lists a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestPublish(t *testing.T) {
	parent := t.TempDir()
	out := filepath.Join(parent, "new", "stack")
	for _, kernel := range []string{"first", "second", "second"} {
		s, files := parts(t, kernel)
		if err := publish(s, files, out); err != nil {
			t.Fatal(err)
		}
		got, err := stack.Load(out)
		if diff := cmp.Diff(s, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", kernel, err, diff)
		}
		want := []string{stack.Firmware, stack.Agent, stack.Initrd, stack.Manifest, stack.Kernel}
		if diff := cmp.Diff(want, names(t, out)); diff != "" {
			t.Errorf("%s: in the folder (-want +got):\n%s", kernel, diff)
		}
		if diff := cmp.Diff([]string{"stack"}, names(t, filepath.Dir(out))); diff != "" {
			t.Errorf("%s: beside the folder (-want +got):\n%s", kernel, diff)
		}
	}
	info, err := os.Stat(filepath.Join(out, stack.Agent))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("agent: %v, %v", info.Mode(), err)
	}
}

// The same stack stays as it stands: whoever runs from it notices nothing.
func TestPublishLeavesTheSameStackAlone(t *testing.T) {
	out := filepath.Join(t.TempDir(), "stack")
	s, files := parts(t, "kernel")
	var stats []os.FileInfo
	for range 2 {
		if err := publish(s, files, out); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(out)
		if err != nil {
			t.Fatal(err)
		}
		stats = append(stats, info)
	}
	if !os.SameFile(stats[0], stats[1]) {
		t.Error("written anew")
	}
	if err := os.WriteFile(filepath.Join(out, stack.Kernel), []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := publish(s, files, out); err != nil {
		t.Fatal(err)
	}
	if _, err := stack.Load(out); err != nil {
		t.Errorf("a damaged stack is not repaired: %v", err)
	}
}

func TestPublishRefuses(t *testing.T) {
	s, files := parts(t, "kernel")

	t.Run("a folder that holds something else", func(t *testing.T) {
		out := t.TempDir()
		if err := os.WriteFile(filepath.Join(out, "thesis.tex"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		err := publish(s, files, out)
		if err == nil || !strings.Contains(err.Error(), "is not empty and holds no boot stack") {
			t.Errorf("error %v", err)
		}
		if diff := cmp.Diff([]string{"thesis.tex"}, names(t, out)); diff != "" {
			t.Errorf("in the folder (-want +got):\n%s", diff)
		}
	})

	t.Run("files that are not the manifest's", func(t *testing.T) {
		parent := t.TempDir()
		_, others := parts(t, "other")
		err := publish(s, others, filepath.Join(parent, "stack"))
		if err == nil || !strings.Contains(err.Error(), "vmlinuz: 5 bytes, the manifest says 6") {
			t.Errorf("error %v", err)
		}
		if got := names(t, parent); got != nil {
			t.Errorf("left behind: %q", got)
		}
	})
}
