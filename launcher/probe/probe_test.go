package probe

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/measure"
)

func boots(first End, rest ...End) []Boot {
	all := []Boot{{Case: right, Booted: first == Ran, Ended: first}}
	for i, end := range rest {
		all = append(all, Boot{Case: wrong()[i].name, Booted: end == Ran, Ended: end})
	}
	return all
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name   string
		boots  []Boot
		want   Verdict
		reason string
	}{
		{"all as they should", boots(Ran, Spent, Idle, Spent, Spent, Idle, Spent), Enforced, "refused 6 boots"},
		{"nothing boots", boots(Idle), Inconclusive, "does not boot what its table names"},
		{"all boot", boots(Ran, Ran, Ran, Ran, Ran, Ran, Ran), NotEnforced, "another kernel, another initrd, another command line, no hash table, a shim, an option ROM"},
		{"a shim boots", boots(Ran, Spent, Spent, Spent, Spent, Ran, Spent), NotEnforced, "it boots with a shim"},
		{"one boots", boots(Ran, Spent, Ran, Spent, Spent), NotEnforced, "it boots with another initrd"},
		{"one boots, one is not clear", boots(Ran, TimeOut, Ran, Spent, Spent), NotEnforced, "it boots with another initrd"},
		{"one is not clear", boots(Ran, Spent, Spent, TimeOut, Spent, Spent, Spent), Inconclusive, "another command line (time-out)"},
		{"too few", boots(Ran, Spent, Spent), Inconclusive, "2 boots of something else, want 6"},
		{"only the first", boots(Ran), Inconclusive, "0 boots"},
		{"as probes were before", boots(Ran, Spent, Idle, Spent, Spent), Inconclusive, "4 boots of something else, want 6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, reason := judge(tt.boots)
			if got != tt.want || !strings.Contains(reason, tt.reason) {
				t.Errorf("%v: %s; want %v with %q", got, reason, tt.want, tt.reason)
			}
		})
	}
}

// The wrong tables differ from the right one in what they say they do.
func TestWrongHashes(t *testing.T) {
	var h measure.KernelHashes
	for _, s := range wrong() {
		if s.table == nil {
			continue
		}
		other := h
		s.table(&other)
		differ := map[string]bool{"another kernel": other.Kernel != h.Kernel, "another initrd": other.Initrd != h.Initrd, "another command line": other.Cmdline != h.Cmdline}
		for name, yes := range differ {
			if yes != (name == s.name) {
				t.Errorf("%s: %s differs: %v", s.name, name, yes)
			}
		}
	}
}

func TestWatch(t *testing.T) {
	quick := patience{work: 400 * time.Millisecond, idle: time.Second, limit: time.Minute}
	for _, tt := range []struct {
		name    string
		program string
		p       patience
		want    End
	}{
		{"busy", "while :; do :; done", quick, Spent},
		{"idle", "exec sleep 60", quick, Idle},
		{"ends", "exit 0", quick, Exited},
		{"neither", "exec sleep 60", patience{work: time.Minute, idle: time.Minute, limit: 300 * time.Millisecond}, TimeOut},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", tt.program)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			exited := make(chan struct{})
			go func() { _ = cmd.Wait(); close(exited) }()
			got, cpu := watch(t.Context(), cmd.Process.Pid, nil, exited, tt.p)
			_ = cmd.Process.Kill()
			<-exited
			if got != tt.want {
				t.Errorf("%v after %v of processor time, want %v", got, cpu, tt.want)
			}
		})
	}
	seen := make(chan struct{})
	close(seen)
	if got, _ := watch(t.Context(), os.Getpid(), seen, nil, quick); got != Ran {
		t.Errorf("the token was seen: %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, _ := watch(ctx, os.Getpid(), nil, nil, quick); got != TimeOut {
		t.Errorf("cancelled: %v", got)
	}
}

func TestConsole(t *testing.T) {
	c := newConsole("token")
	write := func(s string) {
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	write("\x1b[2J\x1b[001;001HBdsDxe: \x1b[1mone\x07\r\n\x1b[2J\r\nto")
	select {
	case <-c.seen:
		t.Fatal("seen too early")
	default:
	}
	if got := c.lastLine("token"); got != "to" {
		t.Errorf("last line %q", got)
	}
	write("ken\r\n")
	select {
	case <-c.seen:
	default:
		t.Fatal("not seen, as it came in two parts")
	}
	write("token\r\n") // a second time
	if got := c.lastLine("token"); got != "BdsDxe: one" {
		t.Errorf("last line %q", got)
	}
	write(strings.Repeat("x", 2*consoleSize))
	if got := c.lastLine("token"); len(c.b) != consoleSize || len(got) != maxLine {
		t.Errorf("%d bytes kept, a line of %d", len(c.b), len(got))
	}
}

func TestRecord(t *testing.T) {
	folder := t.TempDir()
	r := Result{
		MediaType: MediaType, Firmware: measure.Hash{1}, Verdict: Enforced, Reason: "why", Boots: boots(Ran, Spent, Spent, Spent, Idle, Spent, Idle),
		QEMU: "10.0.2", Accel: "tcg", Time: time.Unix(1e9, 0).UTC(),
	}
	if v, _, err := Enforcement(folder, r.Firmware); v != Unknown || err != nil {
		t.Errorf("before: %v, %v", v, err)
	}
	if _, err := Load(folder, r.Firmware); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	for range 2 { // the second takes the first one's place
		if err := r.Save(folder); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(folder, r.Firmware)
	if diff := cmp.Diff(r, got); diff != "" || err != nil {
		t.Errorf("error %v, (-want +got):\n%s", err, diff)
	}
	v, source, err := Enforcement(folder, r.Firmware)
	if v != Enforced || err != nil || source != "probed 2001-09-09 with QEMU 10.0.2: why" {
		t.Errorf("%v, %q, %v", v, source, err)
	}
}

func TestRecordRefuses(t *testing.T) {
	good := Result{MediaType: MediaType, Firmware: measure.Hash{1}, Verdict: Enforced, Boots: boots(Ran, Spent, Spent, Spent, Spent, Spent, Spent)}
	for _, tt := range []struct {
		name   string
		change func(*Result)
		text   string
	}{
		{"media type", func(r *Result) { r.MediaType = "x" }, `media type "x"`},
		{"another firmware's", func(r *Result) { r.Firmware[0] = 2 }, "of firmware 02"},
		{"no boots", func(r *Result) { r.Boots = nil }, "no boots"},
		{"a verdict that does not follow", func(r *Result) { r.Boots = boots(Ran, Ran, Ran, Ran, Ran) }, `its boots say "not enforced", its verdict is "enforced"`},
		{"too few boots for the verdict", func(r *Result) { r.Boots = boots(Ran) }, `its boots say "inconclusive"`},
		{"too large", func(r *Result) { r.Reason = strings.Repeat("x", maxRecord) }, "not a file of at most 65536 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := good
			tt.change(&r)
			data, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			folder := t.TempDir()
			if err := os.WriteFile(recordFile(folder, good.Firmware), data, 0o600); err != nil {
				t.Fatal(err)
			}
			if v, _, err := Enforcement(folder, good.Firmware); v != Unknown || err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v, error %v, want one with %q", v, err, tt.text)
			}
		})
	}
}

func TestKnownImages(t *testing.T) {
	for _, k := range KnownImages() {
		sum, err := measure.ParseHash(k.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if v, source, err := Enforcement(t.TempDir(), sum); v != k.Verdict || source != k.String() || err != nil {
			t.Errorf("%v: %v, %q, %v", k, v, source, err)
		}
	}
}

func TestTexts(t *testing.T) {
	for v := Unknown; v <= Enforced; v++ {
		var got Verdict
		text, err := v.MarshalText()
		if err != nil || got.UnmarshalText(text) != nil || got != v {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for e := Ran; e <= TimeOut; e++ {
		var got End
		text, err := e.MarshalText()
		if err != nil || got.UnmarshalText(text) != nil || got != e {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := (Enforced + 1).MarshalText(); err == nil {
		t.Error("an unknown verdict has a text")
	}
	if _, err := End(0).MarshalText(); err == nil {
		t.Error("no end has a text")
	}
}

func TestRunRefuses(t *testing.T) {
	if r, err := Run(t.Context(), make([]byte, 64<<10), Options{Accel: launcher.TCG}); err == nil || !cmp.Equal(r, Result{}) {
		t.Errorf("%+v, %v", r, err)
	}
}
