package launcher

import (
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
)

func TestDeadLoop(t *testing.T) {
	type sample struct {
		rip    uint64
		halted bool
		cpu    time.Duration
	}
	const ms = time.Millisecond
	for _, tt := range []struct {
		name    string
		samples []sample
		want    bool
	}{
		{"the firmware's loop", []sample{{0x7ec76148, false, 0}, {0x7ec76139, false, 700 * ms}, {0x7ec76148, false, 2000 * ms}}, true},
		{"too short", []sample{{0x7ec76148, false, 0}, {0x7ec76139, false, 700 * ms}, {0x7ec76148, false, 1990 * ms}}, false},
		{"no processor time", []sample{{0x7ec76148, false, 0}, {0x7ec76148, false, 0}, {0x7ec76148, false, 10 * ms}}, false},
		{"work", []sample{{0x7ec76148, false, 0}, {0x7ec77148, false, 1900 * ms}, {0x7ec76148, false, 3800 * ms}}, false},
		{"slow drift", []sample{{0x1000, false, 0}, {0x1030, false, 1700 * ms}, {0x1060, false, 2600 * ms}}, false},
		{"idle", []sample{{0x7ec76148, true, 0}, {0x7ec76148, true, 1900 * ms}, {0x7ec76148, true, 3800 * ms}}, false},
		{"the kernel", []sample{{0xffffffff81000000, false, 0}, {0xffffffff81000000, false, 3000 * ms}}, false},
		{"work, then the loop", []sample{{0x1000, false, 0}, {0x7ec76148, false, 5000 * ms}, {0x7ec76148, false, 7000 * ms}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d deadLoop
			got := false
			for _, s := range tt.samples {
				got = d.sample(s.rip, s.halted, s.cpu)
			}
			if got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestParseRegisters(t *testing.T) {
	for _, tt := range []struct {
		text       string
		rip        uint64
		halted, ok bool
	}{
		// As QEMU 10.0.2 prints them.
		{"R14=0000000000000000 R15=0000000000000600\r\nRIP=000000007ec76148 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\r\n", 0x7ec76148, false, true},
		{"RIP=ffffffff81a0b2ef RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n", 0xffffffff81a0b2ef, true, true},
		{"EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\r\n", 0, false, false},
		{"", 0, false, false},
	} {
		rip, halted, ok := parseRegisters(tt.text)
		if rip != tt.rip || halted != tt.halted || ok != tt.ok {
			t.Errorf("%q: got %#x, %v, %v", tt.text, rip, halted, ok)
		}
	}
}

func TestThreadTime(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, tid := os.Getpid(), syscall.Gettid()
	before, err := threadTime(pid, tid)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		after, err := threadTime(pid, tid)
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("ten seconds of work count as none: still %v", after)
		}
	}
}
