package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// probe builds testdata/probe, static, and returns the folder that holds it.
func probe(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "probe"), "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the probe: %v\n%s", err, out)
	}
	return dir
}

// A command sees its binds, the fixed names, and nothing of this machine. The
// listener that it cannot reach answers from outside.
func TestSeesOnlyWhatItIsGiven(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	outside, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatalf("the listener does not answer, so that the test below means nothing: %v", err)
	}
	outside.Close()
	t.Setenv("KATTEST_SECRET", "of this machine")

	for name, root := range map[string]bool{"empty root": false, "root folder": true} {
		t.Run(name, func(t *testing.T) {
			in, work := probe(t), t.TempDir()
			var out bytes.Buffer
			c := Command{
				Binds: []Bind{
					{Host: in, Guest: "/in"},
					{Host: work, Guest: "/build", Writable: true},
				},
				Dir:    "/build",
				Env:    []string{"LC_ALL=C", "EMPTY=", "EQUALS=a=b"},
				Args:   []string{"/in/probe", listener.Addr().String()},
				Output: &out,
			}
			wantRoot := []any{"build", "dev", "in", "proc", "tmp"}
			if root {
				c.Root = t.TempDir()
				for _, dir := range []string{"proc", "dev", "tmp", "in", "build", "etc"} {
					if err := os.Mkdir(filepath.Join(c.Root, dir), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				wantRoot = []any{"build", "dev", "etc", "in", "proc", "tmp"}
			}
			if err := c.Run(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out.Bytes())
			}
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v: %s", err, out.Bytes())
			}
			want := map[string]any{
				"hostname": "kattest",
				"dir":      "/build",
				"env":      []any{"EMPTY=", "EQUALS=a=b", "LC_ALL=C", "PWD=/build"},
				"uid":      1000.0,
				"gid":      1000.0,
				"root":     wantRoot,
				"in":       []any{"probe"},
				"dial":     true,
				"readOnly": true,
				"writable": false,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("seen inside (-want +got):\n%s", diff)
			}
			made, err := os.ReadFile(filepath.Join(work, "new"))
			if err != nil || string(made) != "made inside" {
				t.Errorf("outside: %q, %v", made, err)
			}
		})
	}
}

// Cancelling kills what runs inside.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asleep := make(chan struct{})
	start := time.Now()
	go func() {
		<-asleep
		cancel()
	}()
	err := Command{
		Binds:  []Bind{{Host: probe(t), Guest: "/in"}},
		Args:   []string{"/in/probe", "sleep"},
		Output: writerFunc(func(b []byte) (int, error) { close(asleep); return len(b), nil }),
	}.Run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if passed := time.Since(start); passed > 50*time.Second {
		t.Errorf("took %v", passed)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestFailures(t *testing.T) {
	err := Command{Args: []string{"/nowhere"}}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "/nowhere in the sandbox: exit status") {
		t.Errorf("a program that is not there: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if err := (Command{Args: []string{"/nowhere"}}).Run(t.Context()); !errors.Is(err, ErrMissing) {
		t.Errorf("without bwrap: %v", err)
	}
}
