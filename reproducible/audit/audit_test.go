package audit_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/audit"
	"github.com/kraudcloud/kattest/reproducible/compare"
)

const cmdline = "console=ttyS0 quiet"

// written makes a stack, which change may alter, manifest and all.
func written(t *testing.T, change func(dir string, s *stack.Stack)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "stack")
	if err := clitest.WriteStack(dir, cmdline); err != nil {
		t.Fatal(err)
	}
	s, err := stack.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Files {
		s.Files[i].Stages = []stack.Stage{{Name: "clean root", SHA256: strings.Repeat("0a", 32)}, {Name: "source", SHA256: strings.Repeat("0b", 32)}}
	}
	change(dir, &s)
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stack.Manifest), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func asItIs(string, *stack.Stack) {}

func rewritten(t *testing.T, name, old, replacement string) func(string, *stack.Stack) {
	return func(dir string, _ *stack.Stack) {
		file := filepath.Join(dir, name)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Replace(data, []byte(old), []byte(replacement), 1)
		if bytes.Equal(data, changed) {
			t.Fatalf("%s has no %q", name, old)
		}
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func released(t *testing.T) release.Release {
	t.Helper()
	s, fw, err := stack.LoadFirmware(written(t, asItIs))
	if err != nil {
		t.Fatal(err)
	}
	cpu, err := measure.ParseCPU("EPYC-v4")
	if err != nil {
		t.Fatal(err)
	}
	shapes := []measure.Shape{{VMM: measure.QEMU, VCPUs: 1, CPU: cpu, GuestFeatures: 1}, {VMM: measure.QEMU, VCPUs: 2, CPU: cpu, GuestFeatures: 1}}
	r, err := release.New(s, fw, shapes, release.Enforced)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func opened(t *testing.T, name, dir string) audit.Copy {
	t.Helper()
	c, err := audit.Open(name, dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRun(t *testing.T) {
	r := released(t)
	kernel, err := os.ReadFile(filepath.Join(written(t, asItIs), stack.Kernel))
	if err != nil {
		t.Fatal(err)
	}
	first := string(kernel[:4])
	source := func(dir string, s *stack.Stack) {
		rewritten(t, stack.Kernel, first, "\x01\x02\x03\x04")(dir, s)
		for i := range s.Files {
			if s.Files[i].Name == stack.Kernel {
				s.Files[i].Stages[1].SHA256 = strings.Repeat("0c", 32)
			}
		}
	}
	for _, tt := range []struct {
		name           string
		stack, rebuilt func(string, *stack.Stack) // nil: none
		want           []audit.Finding            // Inside is looked at below
		launches       bool                       // all the release's
	}{
		{"the release's", asItIs, asItIs, []audit.Finding{}, true},
		{"nothing", nil, nil, []audit.Finding{}, true},
		{"another kernel", source, asItIs, []audit.Finding{{Copy: "stack", Name: stack.Kernel, Other: "rebuilt", Stage: "source"}}, false},
		{"another kernel is built", asItIs, source, []audit.Finding{{Copy: "rebuilt", Name: stack.Kernel, Other: "stack", Stage: "source"}}, false},
		{"another kernel, and nothing beside it", source, nil, []audit.Finding{
			{Copy: "stack", Name: stack.Kernel, Note: "there is nothing to compare it with: a release names files by their digests alone"},
		}, false},
		{"no initrd", func(dir string, _ *stack.Stack) {
			if err := os.Remove(filepath.Join(dir, stack.Initrd)); err != nil {
				t.Fatal(err)
			}
		}, asItIs, []audit.Finding{{Copy: "stack", Name: stack.Initrd, Note: "missing"}}, false},
		{"a file more", func(dir string, s *stack.Stack) {
			if err := os.WriteFile(filepath.Join(dir, "more"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.Files = append(s.Files, stack.File{Name: "more", SHA256: s.Lock})
		}, nil, []audit.Finding{{Copy: "stack", Name: "more", Note: "the release names no such file"}}, true},
		{"lock file", func(_ string, s *stack.Stack) { s.Lock = strings.Repeat("0d", 32) }, nil, []audit.Finding{
			{Copy: "stack", Name: audit.Lock, Note: "it was built from another lock file, so that anything may differ"},
		}, true},
		{"command line", func(_ string, s *stack.Stack) { s.Cmdline += " init=/bin/sh" }, nil, []audit.Finding{
			{Copy: "stack", Name: audit.CommandLine, Other: "release"},
		}, false},
		{"no firmware at all", func(dir string, _ *stack.Stack) {
			if err := os.WriteFile(filepath.Join(dir, stack.Firmware), []byte("firmware"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, asItIs, []audit.Finding{{Copy: "stack", Name: stack.Firmware, Other: "rebuilt"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var copies []audit.Copy
			for _, c := range []struct {
				name   string
				change func(string, *stack.Stack)
			}{{"stack", tt.stack}, {"rebuilt", tt.rebuilt}} {
				if c.change != nil {
					copies = append(copies, opened(t, c.name, written(t, c.change)))
				}
			}
			report := audit.Run(r, measure.Hash{1}, copies...)
			if report.Same() != (len(tt.want) == 0) {
				t.Errorf("same: %v", report.Same())
			}
			launches := true
			for _, l := range report.Launches {
				for _, digest := range l.Copies {
					launches = launches && digest == l.Entry.Measurement.String()
				}
			}
			if launches != tt.launches || len(report.Launches) != 2 {
				t.Errorf("launches: %+v", report.Launches)
			}
			for i, f := range report.Findings {
				if (f.Inside != nil) != (f.Other != "") {
					t.Errorf("inside %s: %v", f.Name, f.Inside)
				}
				report.Findings[i].Inside = nil
			}
			if diff := cmp.Diff(tt.want, report.Findings); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// The copy's bytes come first, the other's second.
func TestRunLooksInside(t *testing.T) {
	r := released(t)
	bad := written(t, func(_ string, s *stack.Stack) { s.Cmdline += " init=/bin/sh" })
	report := audit.Run(r, measure.Hash{}, opened(t, "stack", bad))
	want := &compare.Difference{Offset: int64(len(cmdline)), First: `"` + cmdline + ` init=/bin/sh"`, Second: "at its end"}
	if diff := cmp.Diff(want, report.Findings[0].Inside); diff != "" {
		t.Errorf("inside (-want +got):\n%s", diff)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(dir string) error
		err    string
	}{
		"no manifest":     {func(dir string) error { return os.Remove(filepath.Join(dir, stack.Manifest)) }, stack.Manifest},
		"broken manifest": {func(dir string) error { return os.Truncate(filepath.Join(dir, stack.Manifest), 10) }, "stack manifest"},
		"a link": {func(dir string) error {
			file := filepath.Join(dir, stack.Kernel)
			if err := os.Remove(file); err != nil {
				return err
			}
			return os.Symlink("/dev/zero", file)
		}, "no regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := written(t, asItIs)
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			if c, err := audit.Open("stack", dir); err == nil || !strings.Contains(err.Error(), tt.err) || !cmp.Equal(c.Name, "") {
				t.Errorf("%+v, error %v", c, err)
			}
		})
	}
}
