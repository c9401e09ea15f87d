package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stats is what a container uses. A limit of 0 is none.
type Stats struct {
	Memory, MemoryLimit          uint64 // bytes
	InactiveFile                 uint64 // bytes of Memory: cache that can go at once
	Pids, PidsLimit              uint64 // processes and threads
	CPUMicroseconds              uint64 // since the cgroup was made
	GuestMicroseconds            uint64 // of all processors since the guest's start, idle or not
	UserMicroseconds             uint64
	SystemMicroseconds           uint64
	Periods, Throttled           uint64 // of 100 ms, in which it ran, and in which it had to wait
	ThrottledMicroseconds        uint64
	OOMKills                     uint64
	ReceivedBytes, SentBytes     uint64 // of the guest's eth0
	ReceivedPackets, SentPackets uint64
}

// maxFile bounds what is read of the kernel's files, in bytes.
const maxFile = 1 << 20

func readFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(b), err
}

// ReadStats reads the state of the cgroup of that folder. What the kernel does not
// count there is 0.
// Source: Linux 6.12, Documentation/admin-guide/cgroup-v2.rst.
func ReadStats(cgroup string) (Stats, error) {
	var s Stats
	for _, value := range []struct {
		file, key string
		to        *uint64
	}{
		{"memory.current", "", &s.Memory},
		{"memory.max", "", &s.MemoryLimit},
		{"memory.stat", "inactive_file", &s.InactiveFile},
		{"memory.events", "oom_kill", &s.OOMKills},
		{"pids.current", "", &s.Pids},
		{"pids.max", "", &s.PidsLimit},
		{"cpu.stat", "usage_usec", &s.CPUMicroseconds},
		{"cpu.stat", "user_usec", &s.UserMicroseconds},
		{"cpu.stat", "system_usec", &s.SystemMicroseconds},
		{"cpu.stat", "nr_periods", &s.Periods},
		{"cpu.stat", "nr_throttled", &s.Throttled},
		{"cpu.stat", "throttled_usec", &s.ThrottledMicroseconds},
	} {
		text, err := readFile(filepath.Join(cgroup, value.file))
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return Stats{}, err
		}
		if *value.to, err = number(text, value.key); err != nil {
			return Stats{}, fmt.Errorf("%s: %w", value.file, err)
		}
	}
	var err error
	if s.GuestMicroseconds, err = processorTime(); err != nil {
		return Stats{}, err
	}
	for name, to := range map[string]*uint64{
		"rx_bytes": &s.ReceivedBytes, "tx_bytes": &s.SentBytes, "rx_packets": &s.ReceivedPackets, "tx_packets": &s.SentPackets,
	} {
		if text, err := readFile("/sys/class/net/eth0/statistics/" + name); err == nil {
			if *to, err = number(text, ""); err != nil {
				return Stats{}, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return s, nil
}

// processorTime sums the first line of proc_stat(5) but for the guests' times, which
// are in the users' already.
func processorTime() (uint64, error) {
	text, err := readFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(text, "\n")
	const first, last, hundredth = 1, 8, 10_000 // fields, and microseconds
	fields := strings.Fields(line)
	if len(fields) <= last || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %.80q", line)
	}
	var sum uint64
	for _, field := range fields[first : last+1] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += n
	}
	return sum * hundredth, nil
}

// number reads a file of one number, "max" being 0, or of lines of key and number.
func number(text, key string) (uint64, error) {
	if key == "" {
		if text = strings.TrimSpace(text); text == "max" {
			return 0, nil
		}
		return strconv.ParseUint(text, 10, 64)
	}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == key {
			return strconv.ParseUint(value, 10, 64)
		}
	}
	return 0, nil
}

// ProcessInfo is a process of a container, as ps shows it.
type ProcessInfo struct {
	PID, Parent int // in the container
	UID         uint32
	State       byte   // of proc_pid_stat(5)
	Ticks       uint64 // CPU time, in hundredths of a second
	Start       uint64 // since the kernel's start, in hundredths of a second
	Terminal    bool
	Name        string // at most 15 bytes
	Args        []string
}

// maxProcesses and maxArgs bound a list of processes and the bytes of a command line.
const (
	maxProcesses = 4096
	maxArgs      = 4096
)

// Processes lists the processes of the cgroup of that folder. One that ends meanwhile
// is left out.
func Processes(cgroup string) ([]ProcessInfo, error) {
	text, err := readFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	// Parents are numbered as the agent sees them.
	inside, all := map[int]int{}, []ProcessInfo{}
	for _, field := range strings.Fields(text) {
		outer, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("cgroup.procs: %w", err)
		}
		if len(all) == maxProcesses {
			break
		}
		p, err := readProcess("/proc/" + field)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("process %d: %w", outer, err)
		}
		inside[outer] = p.PID
		all = append(all, p)
	}
	for i := range all {
		all[i].Parent = inside[all[i].Parent] // 0 is outside
	}
	return all, nil
}

func readProcess(dir string) (ProcessInfo, error) {
	stat, err := readFile(dir + "/stat")
	if err != nil {
		return ProcessInfo{}, err
	}
	p, err := parseStat(stat)
	if err != nil {
		return ProcessInfo{}, err
	}
	text, err := readFile(dir + "/status")
	if err != nil {
		return ProcessInfo{}, err
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		switch values := strings.Fields(value); {
		case key == "NSpid" && len(values) > 0:
			if p.PID, err = strconv.Atoi(values[len(values)-1]); err != nil {
				return ProcessInfo{}, err
			}
		case key == "Uid" && len(values) > 0:
			uid, err := strconv.ParseUint(values[0], 10, 32)
			if err != nil {
				return ProcessInfo{}, err
			}
			p.UID = uint32(uid)
		}
	}
	f, err := os.Open(dir + "/cmdline")
	if err != nil {
		return ProcessInfo{}, err
	}
	defer f.Close()
	args, err := io.ReadAll(io.LimitReader(f, maxArgs))
	if err != nil {
		return ProcessInfo{}, err
	}
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(args, []byte{0}), []byte{0}) {
		p.Args = append(p.Args, string(arg))
	}
	return p, nil
}

// parseStat reads proc_pid_stat(5). The name, in parentheses, holds what the process
// likes: what follows begins behind the last one.
func parseStat(text string) (ProcessInfo, error) {
	begin, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if begin < 0 || end < begin {
		return ProcessInfo{}, fmt.Errorf("stat: no name in %.80q", text)
	}
	const state, parent, terminal, user, system, start = 0, 1, 4, 11, 12, 19 // from the state on
	fields := strings.Fields(text[end+1:])
	if len(fields) <= start || len(fields[state]) != 1 {
		return ProcessInfo{}, fmt.Errorf("stat: %d fields behind the name", len(fields))
	}
	var n [start + 1]int64
	for _, i := range []int{parent, terminal, user, system, start} {
		var err error
		if n[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return ProcessInfo{}, fmt.Errorf("stat: %w", err)
		}
	}
	return ProcessInfo{
		Parent: int(n[parent]), State: fields[state][0], Terminal: n[terminal] != 0,
		Ticks: uint64(n[user] + n[system]), Start: uint64(n[start]), Name: text[begin+1 : end],
	}, nil
}
