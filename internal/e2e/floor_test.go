package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/initrd"
)

// maxAgentPart is the most processor time that the agent takes to its first line, as a
// part of what firmware, kernel and an init that does nothing take to theirs.
const maxAgentPart = 0.10

const trivialLine = "trivial init"

// trivialInit is a program that writes one line and waits: an ELF header, one segment
// that holds the whole file, and the code of write(2) and pause(2).
func trivialInit() []byte {
	code := []byte{
		0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
		0xbf, 1, 0, 0, 0, // mov edi, 1
		0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip+16]
		0xba, byte(len(trivialLine) + 1), 0, 0, 0, // mov edx, length
		0x0f, 0x05, // syscall
		0xb8, 34, 0, 0, 0, // mov eax, 34 (pause)
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the former move
	}
	const headers, base = 64 + 56, 0x400000
	program := make([]byte, headers, 256)
	copy(program, "\x7fELF\x02\x01\x01")
	le := func(at int, value uint64, size int) {
		for i := range size {
			program[at+i] = byte(value >> (8 * i))
		}
	}
	le(16, 2, 2)            // executable
	le(18, 62, 2)           // x86-64
	le(20, 1, 4)            // version
	le(24, base+headers, 8) // entry
	le(32, 64, 8)           // program headers
	le(52, 64, 2)           // size of this header
	le(54, 56, 2)           // size of a program header
	le(56, 1, 2)            // how many
	le(64, 1, 4)            // load
	le(68, 5, 4)            // readable, executable
	le(80, base, 8)         // at
	program = append(append(program, code...), trivialLine+"\n"...)
	le(64+32, uint64(len(program)), 8) // in the file
	le(64+40, uint64(len(program)), 8) // in memory
	le(64+48, 4096, 8)                 // alignment
	return program
}

// trivialStack is the boot stack with that init in place of the agent, and files beside it.
func trivialStack(b *testing.B, beside ...initrd.Entry) string {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "stack")
	if err := os.CopyFS(dir, os.DirFS(s.stack)); err != nil {
		b.Fatal(err)
	}
	archive, err := initrd.Encode(append([]initrd.Entry{
		{Name: "dev", Mode: initrd.TypeDir | 0o755},
		{Name: "dev/console", Mode: initrd.TypeChar | 0o600, Major: 5, Minor: 1},
		{Name: "init", Mode: initrd.TypeFile | 0o755, Data: trivialInit()},
	}, beside...))
	if err != nil {
		b.Fatal(err)
	}
	if archive, err = initrd.Compress(archive); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stack.Initrd), archive, 0o600); err != nil {
		b.Fatal(err)
	}
	manifest, err := stack.Load(s.stack)
	if err != nil {
		b.Fatal(err)
	}
	sum := sha256.Sum256(archive)
	for i, f := range manifest.Files {
		if f.Name == stack.Initrd {
			manifest.Files[i].Size, manifest.Files[i].SHA256 = int64(len(archive)), hex.EncodeToString(sum[:])
		}
	}
	data, err := manifest.Encode()
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stack.Manifest), data, 0o600); err != nil {
		b.Fatal(err)
	}
	return dir
}

// moment is how far a start has come, and what it has taken of QEMU's processors and of
// the clock on the wall.
type moment struct{ cpu, wall time.Duration }

// starting is a guest that starts.
type starting struct {
	b     *testing.B
	dir   string
	out   *buffer
	state launcher.State
}

// launch runs the guest in dir, until QEMU does.
func launch(b *testing.B, dir string) (x *starting, end func()) {
	b.Helper()
	x = &starting{b: b, dir: dir, out: &buffer{}}
	if err := os.RemoveAll(filepath.Join(dir, launcher.ConsoleFile)); err != nil {
		b.Fatal(err)
	}
	cmd := s.command("cradle-snp", "run", "--platform", "sim", "--psp-state", s.psp, dir)
	cmd.Stdout, cmd.Stderr = x.out, x.out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	x.until("QEMU runs", func() bool {
		data, err := os.ReadFile(filepath.Join(dir, launcher.StateFile))
		return err == nil && json.Unmarshal(data, &x.state) == nil && x.state.PID != 0
	})
	return x, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		x.until("QEMU is gone", func() bool { _, err := os.Stat(fmt.Sprintf("/proc/%d", x.state.PID)); return err != nil })
		_ = os.Remove(filepath.Join(dir, launcher.StateFile))
	}
}

func (x *starting) until(what string, holds func() bool) {
	x.b.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			x.b.Fatalf("it does not come to pass that %s:\n%s", what, x.out)
		}
	}
}

// reach waits for it, and says what that took.
func (x *starting) reach(what string, holds func() bool) moment {
	x.b.Helper()
	x.until(what, holds)
	m := moment{wall: time.Since(x.state.Began)}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", x.state.PID))
	if err != nil || len(tasks) == 0 {
		x.b.Fatalf("QEMU has ended: %v\n%s", err, x.out)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended just now
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			x.b.Fatal(err)
		}
		m.cpu += time.Duration(ns)
	}
	return m
}

// greeted says whether the workload has answered there.
func greeted(address netip.AddrPort) bool {
	conn, err := net.Dial("tcp", address.String())
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // QEMU accepts before the guest listens
	_, err = bufio.NewReader(conn).ReadString('\n')
	return err == nil
}

func (x *starting) console(text string) func() bool {
	return func() bool {
		data, err := os.ReadFile(filepath.Join(x.dir, launcher.ConsoleFile))
		return err == nil && bytes.Contains(data, []byte(text))
	}
}

// BenchmarkFloor tells what of a start is the agent's: processor time of QEMU and time
// of the clock to its first line, to the container's exec and to a query that is
// served, beside the same firmware and kernel with an init that writes a line. Medians,
// the two taking turns.
func BenchmarkFloor(b *testing.B) {
	summon := func(stack string, options ...string) string {
		dir := filepath.Join(b.TempDir(), "vm")
		line := append(append([]string{"summon", "--stack", stack}, options...), dir, s.layout, "serve", ":8080")
		if out, err := s.command("cradle-snp", line...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return dir
	}
	agent, err := os.ReadFile(filepath.Join(s.stack, stack.Agent))
	if err != nil {
		b.Fatal(err)
	}
	floors := map[string]string{
		"trivial": summon(trivialStack(b)),
		"carried": summon(trivialStack(b, initrd.Entry{Name: "agent", Mode: initrd.TypeFile | 0o755, Data: agent})),
	}
	ours := summon(s.stack, "-p", "8080")
	all := map[string][]moment{}
	note := func(name string, m moment) { all[name] = append(all[name], m) }
	for b.Loop() {
		for name, dir := range floors {
			x, end := launch(b, dir)
			note(name, x.reach("the trivial init runs", x.console(trivialLine)))
			end()
		}
		x, end := launch(b, ours)
		note("agent", x.reach("the agent runs", x.console("msg=agent")))
		note("exec", x.reach("the container runs", func() bool { return strings.Contains(x.out.String(), "s started\n") }))
		f := x.state.Forwards[0]
		note("query", x.reach("a query is served", func() bool { return greeted(netip.AddrPortFrom(f.HostAddress, f.HostPort)) }))
		end()
	}
	b.ReportMetric(0, "ns/op") // the sum of all says nothing
	median := func(name string, of func(moment) time.Duration) float64 {
		values := make([]time.Duration, 0, len(all[name]))
		for _, m := range all[name] {
			values = append(values, of(m))
		}
		slices.Sort(values)
		return values[len(values)/2].Seconds()
	}
	cpu := func(m moment) time.Duration { return m.cpu }
	for _, name := range []string{"trivial", "carried", "agent", "exec", "query"} {
		b.ReportMetric(median(name, cpu), name+"-cpu-s")
		b.ReportMetric(median(name, func(m moment) time.Duration { return m.wall }), name+"-wall-s")
	}
	part := median("agent", cpu)/median("trivial", cpu) - 1
	b.ReportMetric(part, "agent-part")
	if part > maxAgentPart {
		b.Errorf("%v\nthe agent takes %.3f of the floor to its first line, want %.2f at most", all, part, maxAgentPart)
	}
}
