package launcher

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"
)

// What tells the firmware's dead loop from work: the first vCPU spends
// deadLoopCPU of its thread's processor time within deadLoopSpan bytes of code
// below 4 GiB, where the firmware is and Linux is not, and the console stays
// empty.
const (
	watchInterval = 250 * time.Millisecond
	deadLoopCPU   = 2 * time.Second
	deadLoopSpan  = 64 // bytes
	firmwareTop   = 1 << 32
)

// deadLoop watches samples of the first vCPU's instruction pointer.
type deadLoop struct {
	low, high uint64
	since     time.Duration // the thread's processor time at the first sample of the span
	started   bool
}

// sample takes an instruction pointer and the processor time that the vCPU's
// thread has used so far, and says whether the vCPU is in a dead loop. Processor
// time, not the clock: on a loaded machine a vCPU may stand still for want of a
// processor.
func (d *deadLoop) sample(rip uint64, halted bool, cpu time.Duration) bool {
	low, high := min(d.low, rip), max(d.high, rip)
	if !d.started || halted || rip >= firmwareTop || high-low > deadLoopSpan {
		*d = deadLoop{low: rip, high: rip, since: cpu, started: true}
		return false
	}
	d.low, d.high = low, high
	return cpu-d.since >= deadLoopCPU
}

var (
	ripRE = regexp.MustCompile(`\bRIP=([0-9a-f]{16})\b`)
	hltRE = regexp.MustCompile(`\bHLT=([01])\b`)
)

// parseRegisters finds the instruction pointer in what the monitor's "info
// registers" prints. A vCPU in 16- or 32-bit mode has an EIP and no RIP: then ok
// is false.
func parseRegisters(text string) (rip uint64, halted, ok bool) {
	m := ripRE.FindStringSubmatch(text)
	if m == nil {
		return 0, false, false
	}
	rip, err := strconv.ParseUint(m[1], 16, 64)
	if err != nil {
		return 0, false, false
	}
	h := hltRE.FindStringSubmatch(text)
	return rip, h != nil && h[1] == "1", true
}

// threadTime returns the processor time that a thread of a process has used.
// Source: proc_pid_stat(5), fields 14 (utime) and 15 (stime), in units of
// 1/100 s on Linux/x86 (USER_HZ).
func threadTime(pid, tid int) (time.Duration, error) {
	name := fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid)
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	// Field 2 is the name in parentheses and may hold anything.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s: %d fields after the name", name, len(fields))
	}
	var ticks uint64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
