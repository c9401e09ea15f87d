package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/launcher/vm"
)

// vmFolder makes a folder that looks like a VM's.
func vmFolder(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(filepath.Join(dir, vm.StackDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{vm.ConfigFile, vm.SpecFile, vm.RootFile, ConsoleFile} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func root(t *testing.T, dir string) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestLock(t *testing.T) {
	r := root(t, t.TempDir())
	held := func(want bool) {
		t.Helper()
		if got, err := locked(r); got != want || err != nil {
			t.Errorf("locked: %v, %v; want %v", got, err, want)
		}
	}
	held(false)
	lock, err := lockFolder(r)
	if err != nil {
		t.Fatal(err)
	}
	held(true)
	if f, err := lockFolder(r); f != nil || !errors.Is(err, ErrRunning) {
		t.Errorf("a second lock: %v, %v", f, err)
	}
	held(true) // asking did not take it
	if err := unlockFolder(r, lock); err != nil {
		t.Error(err)
	}
	held(false)
	if _, err := r.Lstat(LockFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock's file is left: %v", err)
	}
	// One that a killed launcher left is no lock.
	if err := r.WriteFile(LockFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	held(false)
	if lock, err = lockFolder(r); err != nil {
		t.Fatal(err)
	}
	lock.Close()
	// A link that leads out of the folder is not followed.
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := errors.Join(r.Remove(LockFile), r.Symlink(elsewhere, LockFile)); err != nil {
		t.Fatal(err)
	}
	if f, err := lockFolder(r); err == nil {
		f.Close()
		t.Error("a lock outside the folder")
	}
	if _, err := os.Stat(elsewhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file outside the folder: %v", err)
	}
}

// TestForeign: a folder that others may write to is not run, removed or read.
func TestForeign(t *testing.T) {
	dir := vmFolder(t, "vm")
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T) {
		t.Helper()
		_, errStatus := ReadStatus(dir)
		_, errOpen := openFolder(dir)
		_, errRemove := Remove(dir, true)
		for what, err := range map[string]error{
			"status": errStatus, "run": errOpen, "rm": errRemove, "stop": Stop(t.Context(), dir, 0), "kill": Kill(t.Context(), dir),
			"logs": Logs(t.Context(), dir, false, func(Output) bool { return true }, func() {}),
		} {
			if !errors.Is(err, ErrForeign) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	t.Run("open to a group", check)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadStatus(dir); err != nil || s.Phase != Created {
		t.Errorf("the twin: %v, %v", s, err)
	}
	t.Run("of another user", func(t *testing.T) {
		if err := os.Chown(dir, os.Geteuid()+1, -1); err != nil {
			t.Skipf("only root gives a folder to another user: %v", err)
		}
		check(t)
	})
}

func TestReadStatus(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name    string
		locked  bool
		started bool
		state   bool
		end     bool
		want    Phase
	}{
		{name: "new", want: Created},
		{name: "ended", end: true, want: Exited},
		{name: "just locked", locked: true, want: Starting},
		{name: "locked after an end", locked: true, end: true, want: Starting},
		{name: "booting", locked: true, state: true, want: Starting},
		{name: "running", locked: true, state: true, started: true, want: Running},
		{name: "launcher killed", state: true, started: true, want: Dead},
		{name: "launcher killed after another end", state: true, end: true, want: Dead},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := vmFolder(t, "vm")
			f, err := openFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.root.Mkdir(runDir, 0o700); err != nil {
				t.Fatal(err)
			}
			state := State{MediaType: StateMediaType, PID: os.Getpid()} // a live process is no proof
			if tt.started {
				state.Started = at
			}
			if tt.state {
				err = errors.Join(err, f.writeState(state))
			}
			if tt.end {
				err = errors.Join(err, f.writeEnd(endOf(at, 3, nil)))
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.locked {
				defer f.close()
			} else {
				f.lock.Close() // as its launcher's death does
			}
			s, err := ReadStatus(dir)
			if err != nil || s.Phase != tt.want || s.Phase.Live() != tt.locked {
				t.Errorf("got %v, %v; want %v", s.Phase, err, tt.want)
			}
			if s.Phase == Exited && s.End.Exit != 3 {
				t.Errorf("exit %d", s.End.Exit)
			}
		})
	}
	for p := Created; p <= Dead; p++ {
		if got, err := ParsePhase(p.String()); got != p || err != nil {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
	if p, err := ParsePhase("phase 0"); err == nil || p != 0 {
		t.Errorf("no phase: %v, %v", p, err)
	}
}

func TestRemove(t *testing.T) {
	dir := vmFolder(t, "vm")
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, vm.StackDir, "vmlinuz")); err != nil {
		t.Fatal(err)
	}
	f, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Remove(dir, false); !errors.Is(err, ErrRunning) {
		t.Errorf("a folder that is run: %v", err)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Remove(dir, false); !errors.Is(err, ErrKept) || !strings.Contains(err.Error(), "mine") {
		t.Errorf("a folder with another file: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := Remove(dir, false); err == nil || errors.Is(err, ErrKept) {
		t.Errorf("a folder that is no VM's: %v", err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	whole := vmFolder(t, "vm")
	if _, err := Remove(whole, false); err != nil {
		t.Error(err)
	}
	for name, gone := range map[string]bool{whole: true, outside: false} {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) != gone {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRemoveVolumes: volumes are removed where that is said, and only then.
func TestRemoveVolumes(t *testing.T) {
	for _, volumes := range []bool{false, true} {
		dir := vmFolder(t, "vm")
		disk := filepath.Join(dir, VolumesDir, "data.img")
		if err := os.Mkdir(filepath.Dir(disk), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(disk, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		kept, err := Remove(dir, volumes)
		if err != nil || (kept == "") != volumes {
			t.Errorf("with volumes %v: kept %q, %v", volumes, kept, err)
		}
		if _, err := os.Stat(disk); errors.Is(err, fs.ErrNotExist) != volumes {
			t.Errorf("with volumes %v: the disk: %v", volumes, err)
		}
	}
}

func TestIndex(t *testing.T) {
	x := Index{filepath.Join(t.TempDir(), "index")}
	if all, err := x.List(); len(all) != 0 || err != nil {
		t.Errorf("an index that is not there: %v, %v", all, err)
	}
	a, b, twin := vmFolder(t, "a"), vmFolder(t, "b"), vmFolder(t, "b")
	var ids []string
	for _, dir := range []string{a, b, twin, a} {
		e, err := x.Add(dir)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	// What is no entry, or one that claims another's name, is passed over.
	for name, content := range map[string]string{
		"notes": "hello", ids[0][:11] + "x": a + "\n", strings.Repeat("0", 12): b + "\n", "large": strings.Repeat("/", maxEntry+1),
	} {
		if err := os.WriteFile(filepath.Join(x.Dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(x.Dir, "link")); err != nil {
		t.Fatal(err)
	}
	folders := func() (names []string) {
		all, err := x.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			names = append(names, e.Folder)
		}
		return names
	}
	if got := folders(); len(got) != 3 {
		t.Errorf("got %v", got)
	}
	for what, want := range map[string]string{a: ids[0], "a": ids[0], ids[1]: ids[1], ids[2][:11]: ids[2], twin: ids[2]} {
		if e, err := x.Find(what); err != nil || e.ID != want {
			t.Errorf("%s: %v, %v; want %s", what, e, err, want)
		}
	}
	for what, want := range map[string]error{"b": ErrAmbiguous, "": ErrNoSuchVM, "no": ErrNoSuchVM, "..": ErrNoSuchVM, "zz": ErrNoSuchVM} {
		if e, err := x.Find(what); !errors.Is(err, want) || e != (Entry{}) {
			t.Errorf("%q: %v, %v; want %v", what, e, err, want)
		}
	}
	if _, err := Remove(b, false); err != nil {
		t.Fatal(err)
	}
	if got := folders(); len(got) != 2 {
		t.Errorf("a folder that is gone is listed: %v", got)
	}
	if _, err := os.Stat(filepath.Join(x.Dir, ids[1])); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its entry is left: %v", err)
	}
	if e, err := x.Find("b"); err != nil || e.ID != ids[2] {
		t.Errorf("the one that is left: %v, %v", e, err)
	}
}

// collect reads a guest's output.
func collect(t *testing.T, dir string) (logs []string) {
	t.Helper()
	err := Logs(t.Context(), dir, false, func(o Output) bool {
		logs = append(logs, o.Stream+": "+o.Log)
		return true
	}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	return logs
}

func TestOutputLog(t *testing.T) {
	dir := t.TempDir()
	l := &outputLog{root: root(t, dir)}
	stdout, stderr := l.stream("stdout"), l.stream("stderr")
	if got := collect(t, dir); got != nil {
		t.Errorf("before any output: %q", got)
	}
	fmt.Fprint(stdout, "one\ntw")
	fmt.Fprint(stderr, "other\n")
	fmt.Fprint(stdout, "o\nrest")
	long := strings.Repeat("x", maxOutputLine+1)
	fmt.Fprint(stderr, long+"\n")
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"stdout: one\n", "stderr: other\n", "stdout: two\n",
		"stderr: " + long[1:], "stderr: x\n", "stdout: rest",
	}
	if diff := cmp.Diff(want, collect(t, dir)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// The next run goes on, and half a line that a full disk left is passed over.
	f, err := os.OpenFile(filepath.Join(dir, OutputFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"log":"ha` + "\n")
	f.Close()
	l = &outputLog{root: root(t, dir)}
	fmt.Fprint(l.stream("stdout"), "again\n")
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(want, "stdout: again\n"), collect(t, dir)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestOutputIsBounded: a guest that prints without end fills two files of a
// bounded size, and who follows misses nothing of what is there.
func TestOutputIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := &outputLog{root: root(t, dir)}
	w := l.stream("stdout")
	line := strings.Repeat("y", 1000)
	const n = 3 * maxOutputLog / 1000
	for i := range n {
		fmt.Fprintf(w, "%d %s\n", i, line)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, name := range []string{OutputFile, oldOutputFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Size() > maxOutputLog {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		total += info.Size()
	}
	got := collect(t, dir)
	if want := fmt.Sprintf("stdout: %d %s\n", n-1, line); total < maxOutputLog || got[len(got)-1] != want {
		t.Errorf("%d bytes, the last line is %.30q", total, got[len(got)-1])
	}
	var first int
	fmt.Sscanf(got[0], "stdout: %d", &first)
	if first+len(got) != n {
		t.Errorf("lines from %d on are %d, of %d", first, len(got), n)
	}
}

// TestFollow: who follows gets each line once, over the change of files, and is
// let go at the guest's end.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	f, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := f.output.stream("stdout")
	fmt.Fprint(w, "0\n")
	got := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- Logs(t.Context(), dir, true, func(o Output) bool { got <- o.Log; return true }, func() {})
	}()
	for i := range 10 {
		if want := fmt.Sprintf("%d\n", i); <-got != want {
			t.Errorf("want %q", want)
		}
		if i == 5 { // as append does
			f.output.mu.Lock()
			f.output.size = maxOutputLog
			f.output.mu.Unlock()
		}
		fmt.Fprintf(w, "%d\n", i+1)
	}
	fmt.Fprint(w, "last words")
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if a, b := <-got, <-got; a != "10\n" || b != "last words" || len(got) != 0 {
		t.Errorf("%q, %q and %d more", a, b, len(got))
	}
	ctx, cancel := context.WithCancel(t.Context())
	again, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if err := Logs(ctx, dir, true, func(Output) bool { cancel(); return true }, func() {}); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that is stopped: %v", err)
	}
}

func TestParseRequest(t *testing.T) {
	for in, want := range map[string]string{
		`{"command":"stop"}`:                  "",
		`{"command":"stop","timeoutMS":1500}`: "",
		`{"command":"kill"}`:                  "",
		`{}`:                                  "unknown command",
		`{"command":"shell"}`:                 `unknown command "shell"`,
		`{"command":"stop","timeoutMS":-1}`:   "timeoutMS: -1",
		`{"command":"stop","command":"kill"}`: "command",
		`{"command":"stop","timeoutMS":1e30}`: "timeoutMS",
		`stop`:                                "request",
	} {
		q, err := parseRequest([]byte(in))
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || q != (request{})) {
			t.Errorf("%s: %+v, %v; want an error with %q", in, q, err, want)
		}
	}
}

// TestRequests: a launcher is asked over a path of any length; a wrong request is
// answered, and does not disturb it.
func TestRequests(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 150))
	if err := os.MkdirAll(filepath.Join(dir, runDir), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if f.requests, err = listen(f.file); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- Stop(t.Context(), dir, 2*time.Second) }()
	if got, want := <-f.requests.ch, (request{Command: commandStop, TimeoutMS: 2000}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	select {
	case err := <-stopped:
		t.Fatalf("stop returned before the end: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := Kill(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who gives up waiting: %v", err)
	}
	if got := <-f.requests.ch; got.Command != commandKill {
		t.Errorf("got %+v", got)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	for _, err := range []error{Stop(t.Context(), dir, 0), Kill(t.Context(), dir)} {
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("without a launcher: %v", err)
		}
	}
}

// TestWrongRequest: a wrong request is answered, and reaches no one.
func TestWrongRequest(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, runDir), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if f.requests, err = listen(f.file); err != nil {
		t.Fatal(err)
	}
	defer f.close()
	conn, err := f.dial(launcherSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, `{"command":"dance"}`)
	b := make([]byte, 200)
	n, err := conn.Read(b)
	if err != nil || !strings.Contains(string(b[:n]), `unknown command "dance"`) {
		t.Errorf("answer %q, %v", b[:n], err)
	}
	if n := len(f.requests.ch); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// What is accepted, written again, is read as the same.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"command":"stop","timeoutMS":1500}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := parseRequest(data)
		if err != nil {
			if q != (request{}) {
				t.Fatalf("error %v with a value", err)
			}
			return
		}
		again, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		if q2, err := parseRequest(again); err != nil || q2 != q {
			t.Fatalf("%+v, then %+v, %v", q, q2, err)
		}
	})
}
