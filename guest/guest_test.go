package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func says(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), want)
}

// The spec is judged before any device but its own disk is looked at.
func TestStepsInOrder(t *testing.T) {
	a := newAgent(quiet())
	var names []string
	for _, s := range a.steps() {
		names = append(names, s.String())
	}
	want := []string{
		"mounts", "control port", "kernel settings", "platform", "launch spec",
		"image", "network", "evidence", "secrets", "volumes", "container", "supervision",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Nothing runs after a step that failed.
func TestRunStops(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name string
		fail func(*agent) error
		want string
	}{
		{"no error", func(*agent) error { return nil }, ""},
		{"error", func(*agent) error { return boom }, "second: boom"},
		{"panic", func(*agent) error { panic("oh") }, "second: panic: oh"},
		{"error beside", func(a *agent) error {
			a.beside("server", func() error { return boom })
			select {}
		}, "server: boom"},
		{"panic beside", func(a *agent) error {
			a.beside("server", func() error { panic("oh") })
			select {}
		}, "server: panic: oh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAgent(quiet())
			ran := ""
			err := a.run(t.Context(), []step{
				{"first", func(context.Context) error { ran += "1"; return nil }},
				{"second", func(context.Context) error { return tt.fail(a) }},
				{"third", func(context.Context) error { ran += "3"; return nil }},
			})
			if !says(err, tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
			if want := map[bool]string{true: "13", false: "1"}[tt.want == ""]; ran != want {
				t.Errorf("ran %q, want %q", ran, want)
			}
		})
	}
}

func testSpec() pod.Spec {
	return pod.Spec{
		MediaType: pod.MediaType,
		Image: pod.Image{
			Digest: "sha256:" + strings.Repeat("1", 64),
			Verity: pod.Verity{RootHash: pod.Hash{1}, Salt: pod.Hash{2}, DataBlocks: 3},
		},
		Process: pod.Process{Args: []string{"x"}, Env: []string{}, WorkingDir: "/", Capabilities: []string{}, StopSignal: "SIGTERM"},
		Network: pod.Network{Hostname: "guest"},
		Console: pod.ConsoleNone,
	}
}

func TestTakeSpec(t *testing.T) {
	canonical, err := testSpec().Canonical()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte {
		changed := bytes.Replace(canonical, []byte(old), []byte(new), 1)
		if bytes.Equal(changed, canonical) {
			t.Fatalf("%q is not in the spec", old)
		}
		return changed
	}
	for _, tt := range []struct {
		name     string
		data     []byte
		hostData [32]byte
		want     string
	}{
		{"right", canonical, pod.Digest(canonical), ""},
		{"an argument more", replace(`["x"]`, `["x","y"]`), pod.Digest(canonical), "HOST_DATA of the report is " + pod.Digest(canonical).String()},
		{"HOST_DATA of nothing", canonical, [32]byte{}, "the host handed over another spec than it launched"},
		{"no spec at all, another HOST_DATA", []byte("\x00"), pod.Digest(canonical), "HOST_DATA"}, // compared before it is read
		{"no spec at all", []byte("\x00"), pod.Digest([]byte("\x00")), "launch spec: "},
		{"unknown member", replace(`{`, `{"a":1,`), pod.Digest(replace(`{`, `{"a":1,`)), `unknown member "a"`},
		{"not canonical", replace(`{`, `{ `), pod.Digest(replace(`{`, `{ `)), "not in canonical form"},
		{"unknown signal", replace("SIGTERM", "SIGNONE"), pod.Digest(replace("SIGTERM", "SIGNONE")), `process.stopSignal: unknown signal "SIGNONE"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAgent(quiet())
			err := a.takeSpec(tt.data, tt.hostData)
			if !says(err, tt.want) {
				t.Fatalf("got error %v, want %q", err, tt.want)
			}
			if err != nil {
				if a.spec.MediaType != "" || a.stop != 0 || a.events.events != nil {
					t.Errorf("something of a refused spec is kept: %v, %v, %v", a.spec, a.stop, a.events.events)
				}
				return
			}
			want := []evidence.Event{{Name: "spec", Value: pod.Digest(canonical).String()}}
			if diff := cmp.Diff(want, a.events.snapshot()); diff != "" || a.stop != 15 {
				t.Errorf("stop %v, events -want +got:\n%s", a.stop, diff)
			}
		})
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for name, serial := range map[string]string{
		"vda": "spec", "vdb": "root\n", "vdc": "", "vdd": "spectrum", "vde": "twice", "vdf": "twice\n", "vdg": strings.Repeat("s", 9000),
	} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "serial"), []byte(serial), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, node := range map[string]string{"spec": "/dev/vda", "root": "/dev/vdb", "none": "", strings.Repeat("s", 9000): ""} {
		if got, err := find(dir+"/vd*/serial", want); got != node || err != nil {
			t.Errorf("%.10q: got %q, %v; want %q", want, got, err, node)
		}
	}
	if got, err := find(dir+"/vd*/serial", "twice"); got != "" || !says(err, `two devices are called "twice"`) {
		t.Errorf("got %q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got, err := waitFor(ctx, dir+"/vd*/serial", "none"); got != "" || !says(err, `no device is called "none"`) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestReadLine(t *testing.T) {
	full := strings.Repeat("x", port.MaxLine)
	r := bufio.NewReaderSize(strings.NewReader("stop\n\n"+full+full+"y\nstop\nhalf"), port.MaxLine)
	for i, want := range []struct {
		line string
		err  error
	}{{"stop", nil}, {"", nil}, {full, bufio.ErrBufferFull}, {"stop", nil}, {"half", io.EOF}} {
		line, err := readLine(r)
		if line != want.line || !errors.Is(err, want.err) {
			t.Errorf("line %d: got %.10q (%d bytes), %v; want %.10q, %v", i, line, len(line), err, want.line, want.err)
		}
	}
}

// fakePort is a virtio-serial port: it reads what the host sent, and fails when
// the host does not read.
type fakePort struct {
	io.Reader
	bytes.Buffer
	full   bool
	writes int
	waited time.Duration // the deadline of the last write, from when it was set
}

func (p *fakePort) Read(b []byte) (int, error)      { return p.Reader.Read(b) }
func (p *fakePort) SetReadDeadline(time.Time) error { return nil }
func (p *fakePort) SetWriteDeadline(t time.Time) error {
	p.waited = time.Until(t)
	return nil
}

func (p *fakePort) Write(b []byte) (int, error) {
	p.writes++
	if p.full {
		return 0, os.ErrDeadlineExceeded
	}
	return p.Buffer.Write(b)
}

// flood is a host that sends 64 MiB without a line feed, then nonsense, then
// "stop" twice.
func flood() io.Reader {
	return io.MultiReader(
		io.LimitReader(zeros{}, 64<<20),
		strings.NewReader("\nSTOP\nstop \n\nstop\nstop\n"+strings.Repeat("nonsense\n", 10000)),
		failing{},
	)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("no more") }

func TestListenBoundsAFlood(t *testing.T) {
	var log bytes.Buffer
	c := &control{port: &fakePort{Reader: flood()}, stop: make(chan struct{}, 1)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.listen(slog.New(slog.NewTextHandler(&log, nil)))
	runtime.ReadMemStats(&after)
	if len(c.stop) != 1 {
		t.Error("the request to stop was not heard")
	}
	if n := strings.Count(log.String(), "no command"); n != maxComplaints {
		t.Errorf("%d complaints, want %d", n, maxComplaints)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 || log.Len() > 8<<10 {
		t.Errorf("%d bytes allocated, %d bytes of log", n, log.Len())
	}
}

func TestSend(t *testing.T) {
	p := &fakePort{}
	c := &control{port: p}
	if err := c.send(port.Event{Name: port.EventExit, Exit: 3}); err != nil {
		t.Fatal(err)
	}
	line := p.String()
	if !strings.HasPrefix(line, `{"name":"exit","uptime":`) || !strings.HasSuffix(line, `,"exit":3}`+"\n") {
		t.Errorf("line %q", line)
	}
	// What a refusal may say fits a line, however it must be escaped.
	reason := truncate(strings.Repeat("\x01", 100000), maxReason)
	if err := c.send(port.Event{Name: port.EventRefused, Reason: reason}); err != nil {
		t.Error(err)
	}
	if err := c.send(port.Event{Name: port.EventRefused, Reason: strings.Repeat("x", port.MaxLine)}); !says(err, "more than 4096") {
		t.Errorf("a long line: got error %v", err)
	}
	p.full = true
	if err := c.send(port.Event{Name: port.EventAgent}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a host that does not read: got error %v", err)
	}
}

func TestEnd(t *testing.T) {
	seven := 7
	for _, tt := range []struct {
		name string
		exit *int
		err  error
		want string
	}{
		{"exit", &seven, nil, `"name":"exit"`},
		{"refused", nil, errors.New("the spec is wrong"), `"reason":"the spec is wrong"`},
		{"refused after the exit", &seven, errors.New("late"), `"reason":"late"`},
		{"neither", nil, nil, `"name":"refused"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &fakePort{}
			a := newAgent(quiet())
			a.control, a.exit = &control{port: p}, tt.exit
			a.end(tt.err)
			if !strings.Contains(p.String(), tt.want) {
				t.Errorf("event %s, want %s", p, tt.want)
			}
		})
	}
}

// A host that does not read stalls the workload once, for a second, and gets
// what comes after it reads again.
func TestLossy(t *testing.T) {
	p := &fakePort{}
	l := &lossy{port: p}
	for i, tt := range []struct {
		full   bool
		waited time.Duration // at most
	}{{false, time.Second}, {true, time.Second}, {true, time.Millisecond}, {false, time.Millisecond}, {true, time.Second}} {
		p.full = tt.full
		if n, err := l.Write([]byte{byte('a' + i)}); n != 1 || err != nil {
			t.Errorf("write %d: %d, %v", i, n, err)
		}
		if p.waited > tt.waited || tt.waited == time.Second && p.waited < time.Second/2 {
			t.Errorf("write %d waits for %v, want %v", i, p.waited, tt.waited)
		}
	}
	if p.String() != "ad" {
		t.Errorf("the host got %q", p)
	}
}

// Without console=output no port is opened, and everything is read.
func TestOutputWithoutConsole(t *testing.T) {
	o := &newAgent(quiet()).output
	if err := o.open(t.Context(), pod.ConsoleNone); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	o.drain(&container.Process{Stdout: r})
	if _, err := w.Write(make([]byte, 2*logSize)); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(w, "the last"); err != nil {
		t.Error(err)
	}
	w.Close()
	o.drained.Wait()
	reader, last := o.log.Oldest(), container.Entry{}
	for e, ok := reader.Kept(); ok; e, ok = reader.Kept() {
		last = e
	}
	if string(last.Data) != "the last" || last.Stream != container.Stdout {
		t.Errorf("the log ends with %q", last.Data)
	}
}

func TestVerityTarget(t *testing.T) {
	got, err := target("/dev/vdb", testSpec().Image.Verity)
	if err != nil {
		t.Fatal(err)
	}
	want := "1 /dev/vdb /dev/vdb 4096 4096 3 3 sha256 01" + strings.Repeat("0", 62) + " 02" + strings.Repeat("0", 62)
	if got.Type != "verity" || got.SectorStart != 0 || got.Length != 24 || got.Params != want {
		t.Errorf("got %+v, want the parameters %q", got, want)
	}
}

func TestAddr(t *testing.T) {
	for _, prefix := range []string{"10.0.2.15/24", "192.0.2.1/32", "fd00::1/64"} {
		a := addr(netip.MustParsePrefix(prefix))
		if a.IPNet.String() != prefix {
			t.Errorf("got %s, want %s", a.IPNet, prefix)
		}
	}
}
