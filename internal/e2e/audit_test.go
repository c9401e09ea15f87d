package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/fv"
)

// The release of the stack that the other tests boot, audited by building it
// again: the same. An altered stack, sizes and manifest fitting, is not, and the
// audit finds where it was altered.
func TestAudit(t *testing.T) {
	audit := func(more ...string) result {
		t.Helper()
		args := append([]string{"audit", s.release, "--key", s.pub, "--source", "../..", "--rebuild", "--without-diffoscope"}, more...)
		return run(t, s.command("kattest", args...))
	}
	out := filepath.Join(t.TempDir(), "rebuilt")
	audit("--stack", s.stack, "--out", out).want(t, 0, ": SAME")
	for _, name := range []string{stack.Manifest, stack.Kernel} {
		a, errA := os.ReadFile(filepath.Join(s.stack, name))
		b, errB := os.ReadFile(filepath.Join(out, name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v, %v", name, errA, errB)
		}
	}

	t.Run("altered agent", func(t *testing.T) {
		dir := alteredStack(t, stack.Agent, func(t *testing.T, b []byte) []byte {
			i := bytes.Index(b, []byte("HOST_DATA"))
			if i < 0 {
				t.Fatal("the agent does not say HOST_DATA")
			}
			b[i] ^= 1
			return b
		}, true)
		audit("--stack", dir).want(t, 5,
			stack.Agent+" of the stack copy, beside the rebuilt one", "  inside: section .rodata: offset 0x", ": 494f53545f44415441", ", 484f53545f44415441", "DIFFERENT: "+stack.Agent+" (stack)")
	})
	t.Run("altered firmware", func(t *testing.T) {
		var module string
		dir := alteredStack(t, stack.Firmware, func(t *testing.T, b []byte) []byte {
			parts, err := fv.Open(b)
			if err != nil {
				t.Fatal(err)
			}
			// A program that stands in the image as it is, not compressed.
			i := slices.IndexFunc(parts, func(p fv.Part) bool {
				return p.Inside == "" && !p.Whole && len(p.Data) > 4096 && strings.Contains(p.Path, "PE32")
			})
			if i < 0 {
				t.Fatal("no such module")
			}
			module = strings.ReplaceAll(parts[i].Path, "/", ", ")
			b[parts[i].Offset+4000] ^= 1
			return b
		}, true)
		audit("--stack", dir).want(t, 5, stack.Firmware+" of the stack copy, beside the rebuilt one", "  inside: "+module+": offset 0xfa0: ", "the measurement of the stack copy")
	})
	t.Run("altered kernel", func(t *testing.T) {
		dir := alteredStack(t, stack.Kernel, flipUnused, true)
		audit("--stack", dir).want(t, 5, stack.Kernel+" of the stack copy, beside the rebuilt one", "  inside: ", "the measurement of the stack copy")
	})
}
