package reproducible

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestBuildLog(t *testing.T) {
	boom := errors.New("boom")
	canceled := fmt.Errorf("compiling: %w", context.Canceled)
	all := strings.Repeat(strings.Repeat("x", 63)+"\n", 100) + "last words\n"
	for name, c := range map[string]struct {
		err  error
		want string // with %s for the log's name
	}{
		"success":      {nil, "%.0s<nil>"},
		"failure":      {boom, "boom; the end of %s:\n" + all[len(all)-tailSize:]},
		"cancellation": {canceled, "%.0scompiling: context canceled"},
	} {
		file := filepath.Join(t.TempDir(), "log")
		l, err := (&progress{}).open("step", file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Write([]byte(all)); err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(l.close(c.err)), fmt.Sprintf(c.want, file); got != want {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
		if l.lines.Load() != 101 {
			t.Errorf("%s: %d lines", name, l.lines.Load())
		}
	}
}
