package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/vm"
)

// soak says how much of it there is: make soak has more than make test.
func soak(t *testing.T, variable string, short int) int {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		return short
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		t.Fatalf("%s: %q is no number above 0", variable, value)
	}
	return n
}

// wear is what many guests may wear out on a machine.
type wear struct {
	files       []string // of the guest's folder, and of the temporary one
	processes   []int    // that work in the guest's folder
	descriptors int      // of this process
	goroutines  int
	heap        int // bytes in use
	resident    int // bytes of memory, which is told and not judged: the collector's pace decides it
}

// wearOf looks at this process, and at the guest in dir.
func wearOf(t *testing.T, dir string) (w wear) {
	t.Helper()
	for _, root := range []string{dir, os.TempDir()} {
		err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			w.files = append(w.files, path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.processes = workingIn(t, dir)
	w.descriptors = descriptors(os.Getpid())
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	w.heap, w.goroutines = int(m.HeapAlloc), runtime.NumGoroutine()
	var err error
	if w.resident, err = resident(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	return w
}

// workingIn are the processes whose working folder is dir: QEMU's is the guest's.
func workingIn(t *testing.T, dir string) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range all {
		if where, err := os.Readlink(link); err == nil && where == dir { // others come and go
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// descriptors are the open files of a process; 0 where it has ended.
func descriptors(pid int) int {
	all, err := os.ReadDir(filepath.Join("/proc", itoa(pid), "fd"))
	if err != nil {
		return 0
	}
	return len(all)
}

// resident is the memory that a process has, in bytes.
func resident(pid int) (int, error) {
	data, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "statm"))
	if err != nil {
		return 0, err
	}
	var size, pages int
	_, err = fmt.Sscan(string(data), &size, &pages)
	return pages * os.Getpagesize(), err
}

// heapGrowth is what the heap may grow by over any number of guests, in bytes. Of 200
// guests, one buffer of 8 KiB each would show.
const heapGrowth = 1 << 20

// less fails the test where more is worn than before.
func (w wear) less(t *testing.T, before wear) {
	t.Helper()
	if !slices.Equal(w.files, before.files) {
		t.Errorf("files: %q, before %q", w.files, before.files)
	}
	if len(w.processes) > 0 {
		t.Errorf("processes %v are left", w.processes)
	}
	if w.descriptors > before.descriptors {
		t.Errorf("%d open files, before %d", w.descriptors, before.descriptors)
	}
	if w.goroutines > before.goroutines {
		t.Errorf("%d goroutines, before %d", w.goroutines, before.goroutines)
	}
	if w.heap > before.heap+heapGrowth {
		t.Errorf("%d bytes in use, before %d", w.heap, before.heap)
	}
}

// soakFolder summons a guest, and gives the test a folder for temporary files that
// nothing else uses.
func soakFolder(t *testing.T, args ...string) string {
	t.Helper()
	dir := summon(t, append([]string{"--scratch", "64M"}, output...), args...)
	temp := filepath.Join(t.TempDir(), "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	return dir
}

// startAndStop runs the guest in dir by the launcher itself, and stops it as soon as
// it serves.
func startAndStop(t *testing.T, dir string) {
	t.Helper()
	v, err := vm.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	exit, err := launcher.Run(ctx, v, launcher.Options{
		Platform: launcher.Sim, PSPState: s.psp, Stdout: onText{"serving\n", stop},
	})
	if err != nil || exit != 7 {
		t.Fatalf("exit status %d, %v", exit, err)
	}
}

// onText calls do whenever what is written is text.
type onText struct {
	text string
	do   func()
}

func (o onText) Write(p []byte) (int, error) {
	if string(p) == o.text {
		o.do()
	}
	return len(p), nil
}

// TestSoakStarts: a launcher that starts and stops guests one after another wears out
// nothing.
func TestSoakStarts(t *testing.T) {
	dir := soakFolder(t, "serve", ":8080")
	for range 2 { // what is made once is made
		startAndStop(t, dir)
	}
	before := wearOf(t, dir)
	began, n := time.Now(), soak(t, "KATTEST_SOAK_STARTS", 2)
	for i := range n {
		startAndStop(t, dir)
		if left := workingIn(t, dir); left != nil {
			t.Fatalf("after start %d: processes %v", i+1, left)
		}
	}
	after := wearOf(t, dir)
	after.less(t, before)
	t.Logf("%d starts and stops, %.1f s each; open files %d, then %d; goroutines %d, then %d; heap %d KiB, then %d; resident %d KiB, then %d",
		n, time.Since(began).Seconds()/float64(n), before.descriptors, after.descriptors, before.goroutines, after.goroutines,
		before.heap>>10, after.heap>>10, before.resident>>10, after.resident>>10)
}

// TestSoakKills: guests one after another, of which each launcher or QEMU is killed at
// any moment. Whatever is killed takes the other with it, and the folder can be run.
func TestSoakKills(t *testing.T) {
	dir := soakFolder(t, "serve", ":8080")
	startAndStop(t, dir)
	before := wearOf(t, dir)
	seed := uint64(soak(t, "KATTEST_SOAK_SEED", int(time.Now().Unix())))
	random := rand.New(rand.NewPCG(seed, 0))
	n := soak(t, "KATTEST_SOAK_KILLS", 3)
	for range n {
		killed(t, dir, random.IntN(2) == 0, time.Duration(random.Int64N(int64(8*time.Second))))
	}
	startAndStop(t, dir)
	after := wearOf(t, dir)
	after.less(t, before)
	t.Logf("%d kills, KATTEST_SOAK_SEED=%d", n, seed)
}

// killed runs the guest in dir, and kills QEMU or the launcher after a while.
func killed(t *testing.T, dir string, qemu bool, after time.Duration) {
	t.Helper()
	victim := "the launcher"
	if qemu {
		victim = "QEMU"
	}
	t.Logf("%s is killed after %v", victim, after.Round(time.Millisecond))
	cmd := s.command("cradle-snp", "run", "--platform", "sim", "--psp-state", s.psp, dir)
	var out buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if pid := cmd.Process.Pid; qemu {
		eventually(t, "QEMU", func() bool { pid = qemuIn(t, dir, cmd.Process.Pid); return pid != 0 })
		time.Sleep(after)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	} else {
		time.Sleep(after)
		_ = cmd.Process.Kill()
	}
	err := cmd.Wait()
	if err == nil {
		t.Errorf("the launcher ended as if nothing had happened:\n%s", out.String())
	}
	eventually(t, "the end of all", func() bool { return workingIn(t, dir) == nil })
	status, err := launcher.ReadStatus(dir)
	if err != nil || status.Phase.Live() {
		t.Errorf("the folder is %v, %v", status.Phase, err)
	}
	if !qemu {
		return
	}
	for _, name := range []string{launcher.StateFile, "run", "lock"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	if !strings.Contains(status.End.Error, "signal: killed") {
		t.Errorf("the end is told as %q", status.End.Error)
	}
}

// qemuIn is the process in dir that is not the launcher, or 0.
func qemuIn(t *testing.T, dir string, launcher int) int {
	t.Helper()
	for _, pid := range workingIn(t, dir) {
		if pid != launcher {
			return pid
		}
	}
	return 0
}

// What a launcher may have at most of memory, in bytes, however much a guest prints.
const maxResident = 96 << 20

// TestSoakOutput: a guest that prints as much as others in a day, with a reader that
// keeps up and one that never reads. The launcher's memory and open files do not
// grow, nor do the logs beyond their bound, and no line is out of its order.
func TestSoakOutput(t *testing.T) {
	n := soak(t, "KATTEST_SOAK_LINES", 20_000)
	dir := soakFolder(t, "lines", strconv.Itoa(n))
	began := time.Now()
	detach(t, dir)
	pid := stateOf(t, dir).Launcher
	files := descriptors(pid) + 1 // the log, where it is not open yet
	neverRead(t, dir)
	read := make(chan reading, 1)
	go func() { read <- follow(t.Context(), dir) }()
	most, peak := 0, 0
	for alive(pid) {
		most = max(most, descriptors(pid))
		if now, err := resident(pid); err == nil { // it may end meanwhile
			peak = max(peak, now)
		}
		time.Sleep(50 * time.Millisecond)
	}
	r := <-read
	if r.err != nil || r.last != n {
		t.Errorf("the reader saw line %d last, want %d: %v", r.last, n, r.err)
	}
	if most > files {
		t.Errorf("the launcher had %d open files, want %d at most", most, files)
	}
	if peak > maxResident {
		t.Errorf("the launcher had %d bytes of memory, want %d at most", peak, maxResident)
	}
	logs := 0
	for _, name := range []string{launcher.OutputFile, launcher.OutputFile + ".1"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil { // the second one where there is much
			logs += int(info.Size())
		}
	}
	if logs > 32<<20 {
		t.Errorf("the logs have %d bytes", logs)
	}
	t.Logf("%d lines in %.1f s, of which the reader saw %d; at most %d open files; %d KiB resident; %d KiB of logs",
		n, time.Since(began).Seconds(), r.lines, most, peak>>10, logs>>10)
}

// neverRead follows the output of the guest in dir, into a pipe that no one empties.
func neverRead(t *testing.T, dir string) {
	t.Helper()
	cmd := s.command("cradle-snp", "logs", "--follow", dir)
	if _, err := cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
}

// reading is what a reader saw of a guest's numbered lines.
type reading struct {
	lines, last int
	err         error // a line that is not whole, or not above the one before it
}

func follow(ctx context.Context, dir string) (r reading) {
	err := launcher.Logs(ctx, dir, true, func(o launcher.Output) bool {
		number, _ := strconv.Atoi(strings.TrimSpace(o.Log[:min(len(o.Log), 9)])) // 0 is below any
		if number <= r.last || len(o.Log) != 100 {
			r.err = fmt.Errorf("after line %d comes %q", r.last, o.Log)
			return false
		}
		r.lines, r.last = r.lines+1, number
		return true
	}, func() {})
	r.err = errors.Join(r.err, err)
	return r
}
