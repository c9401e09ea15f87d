package launcher

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/launcher/simpsp"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/stack"
)

// checkClean wants nothing left of a run but the console's log.
func checkClean(t *testing.T, v *vm.VM) {
	t.Helper()
	for _, name := range []string{runDir, StateFile} {
		if _, err := os.Stat(filepath.Join(v.Dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind (%v)", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(v.Dir, ConsoleFile)); err != nil {
		t.Error(err)
	}
}

func TestBootExit(t *testing.T) {
	v := guest(t, "exit", "7")
	o := simulated(t)
	var stdout, stderr bytes.Buffer
	o.Stdout, o.Stderr = &stdout, &stderr
	var state State
	o.OnStart = func(s State) { state = s }
	var names []port.EventName
	last := time.Duration(0)
	o.OnEvent = func(e Event) {
		names = append(names, e.Name)
		if e.Since <= 0 || e.Since < last {
			t.Errorf("%s after %v, the one before after %v", e.Name, e.Since, last)
		}
		last = e.Since
	}
	exit, err := Run(t.Context(), v, o)
	if exit != 7 || err != nil {
		t.Fatalf("got %d, %v; want 7", exit, err)
	}
	if stdout.String() != "to stdout\n" || stderr.String() != "to stderr\n" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
	if got := fmt.Sprint(names); got != "[agent started exit]" {
		t.Errorf("events %s", got)
	}
	if state.PID == 0 || state.Agent.Port() == 0 || state.Platform != "sim" {
		t.Errorf("state %+v", state)
	}
	if alive(state.PID) {
		t.Errorf("QEMU (%d) outlives the run", state.PID)
	}
	checkClean(t, v)
}

func TestBootStop(t *testing.T) {
	v := guest(t, "wait")
	o := simulated(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.OnEvent = func(e Event) {
		if e.Name != port.EventStarted {
			return
		}
		if _, err := Run(ctx, v, o); !errors.Is(err, ErrRunning) {
			t.Errorf("a second launcher: got error %v", err)
		}
		cancel()
	}
	exit, err := Run(ctx, v, o)
	if exit != 143 || err != nil {
		t.Errorf("got %d, %v; want 143", exit, err)
	}
	checkClean(t, v)
}

func TestBootFailures(t *testing.T) {
	for _, tt := range []struct {
		part   string
		change func(*Options)
		want   string
	}{
		{"refuse", nil, "the guest refused: the spec is not\uFFFD[2J mine"},
		{"garbage", nil, "the guest broke the rules: control port: a line of more than 4096 bytes"},
		{"silent", nil, "the guest ended without a word (it powered off)"},
		{"hang", func(o *Options) { o.BootTimeout = 8 * time.Second }, "the container was not started within 8s"},
		{"deaf", func(o *Options) { o.StopTimeout = time.Second }, "stopped before the container ended: it took more than 1s"},
	} {
		t.Run(tt.part, func(t *testing.T) {
			v := guest(t, tt.part)
			o := simulated(t)
			if tt.change != nil {
				tt.change(&o)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.part == "deaf" {
				o.OnEvent = func(e Event) {
					if e.Name == port.EventStarted {
						cancel()
					}
				}
			}
			exit, err := Run(ctx, v, o)
			if exit != 0 || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %d, %v; want an error with %q", exit, err, tt.want)
			}
			checkClean(t, v)
		})
	}
}

func TestBootKill(t *testing.T) {
	v := guest(t, "deaf")
	o := simulated(t)
	kill := make(chan struct{})
	o.Kill = kill
	o.OnEvent = func(e Event) {
		if e.Name == port.EventStarted {
			close(kill)
		}
	}
	if _, err := Run(t.Context(), v, o); !errors.Is(err, ErrStopped) {
		t.Errorf("got error %v, want %v", err, ErrStopped)
	}
	checkClean(t, v)
}

// TestBootOrphan: QEMU ends with a launcher that is killed, and the next run
// clears what that one left.
func TestBootOrphan(t *testing.T) {
	const variable = "KATTEST_TEST_ORPHAN"
	if dir := os.Getenv(variable); dir != "" { // the launcher that will be killed
		v, err := vm.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Run(t.Context(), v, Options{Platform: Sim, PSPState: filepath.Join(dir, "psp")})
		t.Fatal(err)
	}
	v := guest(t, "deaf")
	launcher := exec.Command(os.Args[0], "-test.run=^TestBootOrphan$")
	launcher.Env = append(os.Environ(), variable+"="+v.Dir)
	if err := launcher.Start(); err != nil {
		t.Fatal(err)
	}
	var state State
	eventually(t, "run.json", func() bool {
		data, err := os.ReadFile(filepath.Join(v.Dir, StateFile))
		return err == nil && json.Unmarshal(data, &state) == nil
	})
	if _, err := threadTime(state.PID, state.PID); err != nil {
		t.Errorf("QEMU does not run: %v", err)
	}
	if err := launcher.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := launcher.Wait(); err == nil {
		t.Error("the launcher ended well")
	}
	eventually(t, "QEMU's end", func() bool { return !alive(state.PID) })

	o := simulated(t)
	ctx, cancel := context.WithCancel(t.Context())
	o.OnStart = func(State) { cancel() } // before there is an agent to ask
	if _, err := Run(ctx, v, o); !errors.Is(err, ErrStopped) {
		t.Errorf("the next run: got error %v, want %v", err, ErrStopped)
	}
	checkClean(t, v)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// alive says whether a process runs. One that no one has waited for yet is dead.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	return string(rest[0]) != "Z"
}

// TestBootReport: what the simulated PSP signs is the digest of what was
// launched and the digest of the spec, unless the host claims otherwise.
func TestBootReport(t *testing.T) {
	v := guest(t, "psp")
	o := simulated(t)
	var report bytes.Buffer
	o.Stdout = &report
	exit, err := Run(t.Context(), v, o)
	if err != nil {
		t.Fatal(err)
	}
	if report.Len() != port.ReportSize {
		t.Fatalf("%d bytes of report", report.Len())
	}
	hostData, err := v.Spec.HostData()
	if err != nil {
		t.Fatal(err)
	}
	if got := report.Bytes()[0xc0:0xe0]; !bytes.Equal(got, hostData[:]) || exit != int(hostData[0]) {
		t.Errorf("HOST_DATA %x, want %s", got, hostData)
	}
	if got := binary.LittleEndian.Uint64(report.Bytes()[8:]); got != Policy {
		t.Errorf("POLICY %#x", got)
	}
	want := digest(t, v)
	if got := report.Bytes()[0x90:0xc0]; !bytes.Equal(got, want[:]) {
		t.Errorf("MEASUREMENT %x, want %s", got, want)
	}

	o.Claims.HostData = &pod.Hash{0x55}
	if exit, err := Run(t.Context(), v, o); exit != 0x55 || err != nil {
		t.Errorf("a claimed HOST_DATA: got %d, %v; want %d", exit, err, 0x55)
	}
}

func digest(t *testing.T, v *vm.VM) measure.Digest {
	t.Helper()
	image, err := os.ReadFile(v.StackFile(stack.Firmware))
	if err != nil {
		t.Fatal(err)
	}
	fw, err := measure.ParseFirmware(image)
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := hashKernel(v, Claims{})
	if err != nil {
		t.Fatal(err)
	}
	shape, err := v.Shape()
	if err != nil {
		t.Fatal(err)
	}
	d, err := measure.Measure(fw, &hashes, shape)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestBootFirmwareRefuses: the host puts the hashes of a good stack into the
// table and boots another. The real firmware stops each time.
func TestBootFirmwareRefuses(t *testing.T) {
	good := guest(t, "exit", "0")
	hashes, err := hashKernel(good, Claims{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(dir string) error
	}{
		{"kernel", func(dir string) error { return flip(filepath.Join(dir, stack.Kernel)) }},
		{"initrd", func(dir string) error { return flip(filepath.Join(dir, stack.Initrd)) }},
		{"command line", func(dir string) error {
			s, err := stack.Read(dir)
			if err != nil {
				return err
			}
			return writeManifest(dir, s.Cmdline+" rdinit=/bin/sh")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			b, err := prepareBoots()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(dir, os.DirFS(b.stack())); err != nil {
				t.Fatal(err)
			}
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			s, err := stack.Read(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := writeManifest(dir, s.Cmdline); err != nil { // as a host that lies would
				t.Fatal(err)
			}
			o := simulated(t)
			o.Claims.Hashes = &hashes
			v := guestOf(t, dir, "exit", "0")
			began := time.Now()
			if exit, err := Run(t.Context(), v, o); exit != 0 || !errors.Is(err, ErrFirmwareRefused) {
				t.Errorf("got %d, %v; want %v", exit, err, ErrFirmwareRefused)
			}
			t.Logf("refused after %v", time.Since(began).Round(time.Millisecond))
			if digest(t, v) == digest(t, good) {
				t.Error("the change is not in the launch digest")
			}
		})
	}
}

// flip changes one bit in the middle of a file.
func flip(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], end/2); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], end/2)
	return err
}

// TestPSPState: the chain that a verifier is told to trust is there after a run.
func TestPSPState(t *testing.T) {
	v := guest(t, "silent")
	o := simulated(t)
	if _, err := Run(t.Context(), v, o); err == nil {
		t.Error("a silent guest passes")
	}
	if _, err := os.Stat(filepath.Join(o.PSPState, simpsp.ChainFile)); err != nil {
		t.Error(err)
	}
}

// BenchmarkBoot measures the time from QEMU's start to the first line of a PID 1
// that does nothing: what firmware and kernel cost, below the agent.
func BenchmarkBoot(b *testing.B) {
	v := guest(b, "exit", "0")
	o := simulated(b)
	if _, err := simpsp.Load(o.PSPState); err != nil { // made before the clock runs
		b.Fatal(err)
	}
	var total time.Duration
	o.OnEvent = func(e Event) {
		if e.Name == port.EventAgent {
			total += e.Since
		}
	}
	n := 0
	for b.Loop() {
		if exit, err := Run(b.Context(), v, o); exit != 0 || err != nil {
			b.Fatal(exit, err)
		}
		n++
	}
	b.ReportMetric(total.Seconds()/float64(n), "s/first-line")
}
