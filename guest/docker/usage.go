package docker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
)

// statsInterval is the time between two samples of a stream.
const statsInterval = time.Second

// stats sends what the container uses: once, or each second.
func (s *Server) stats(c *call) error {
	// Missing, docker's daemon takes it for true.
	stream := c.r.FormValue("stream") == "" || c.flag("stream")
	previous, err := s.sample()
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(c.w)
	c.w.Header().Set("Content-Type", "application/json")
	if !stream && c.flag("one-shot") {
		return encoder.Encode(previous)
	}
	for {
		select {
		case <-c.r.Context().Done():
			return nil
		case <-s.ctx.Done():
			return nil
		case <-time.After(statsInterval):
		}
		now, err := s.sample()
		now.PreCPUStats, now.PreRead = previous.CPUStats, previous.Read
		// The answer has begun: it ends where there is nothing to tell, or nobody.
		if err != nil || encoder.Encode(now) != nil || http.NewResponseController(c.w).Flush() != nil || !stream {
			return nil //nolint:nilerr // see above
		}
		previous = now
	}
}

// sample is what the container uses now; zeros where it does not run.
func (s *Server) sample() (api.StatsResponse, error) {
	r := api.StatsResponse{ID: s.id, Name: "/" + s.name, OSType: "linux", Read: time.Now().UTC()}
	if state, _ := s.engine.State(); !state.Running {
		return r, nil
	}
	used, err := s.engine.Stats()
	if err != nil {
		return r, err
	}
	const microsecond = uint64(time.Microsecond)
	r.CPUStats = api.CPUStats{
		CPUUsage: api.CPUUsage{
			TotalUsage:        used.CPUMicroseconds * microsecond,
			UsageInKernelmode: used.SystemMicroseconds * microsecond,
			UsageInUsermode:   used.UserMicroseconds * microsecond,
		},
		SystemUsage: used.GuestMicroseconds * microsecond, OnlineCPUs: uint32(runtime.NumCPU()),
		ThrottlingData: api.ThrottlingData{Periods: used.Periods, ThrottledPeriods: used.Throttled, ThrottledTime: used.ThrottledMicroseconds * microsecond},
	}
	r.MemoryStats = api.MemoryStats{Usage: used.Memory, Limit: used.MemoryLimit, Stats: map[string]uint64{"inactive_file": used.InactiveFile}}
	if used.MemoryLimit == 0 {
		var guest unix.Sysinfo_t
		if err := unix.Sysinfo(&guest); err != nil {
			return r, err
		}
		r.MemoryStats.Limit = guest.Totalram * uint64(guest.Unit)
	}
	r.PidsStats = api.PidsStats{Current: used.Pids, Limit: used.PidsLimit}
	r.Networks = map[string]api.NetworkStats{"eth0": {
		RxBytes: used.ReceivedBytes, RxPackets: used.ReceivedPackets, TxBytes: used.SentBytes, TxPackets: used.SentPackets,
	}}
	return r, nil
}

// ticksPerSecond is USER_HZ, in which the kernel tells times of processes.
const ticksPerSecond = 100

// top lists the container's processes, as "ps -ef" or "ps aux" does, by the numbers
// that they have in the container.
func (s *Server) top(c *call) error {
	args := strings.Join(strings.Fields(c.r.FormValue("ps_args")), " ")
	bsd := args == "aux" || args == "-aux"
	if args != "" && args != "-ef" && !bsd {
		return failure(http.StatusBadRequest, "ps_args: %.40q: this guest has no ps: -ef and aux are known", args)
	}
	if state, _ := s.engine.State(); !state.Running {
		return ErrNotRunning
	}
	all, err := s.engine.Processes()
	if err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return err
	}
	response := api.TopResponse{
		Titles:    []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"},
		Processes: [][]string{},
	}
	if bsd {
		response.Titles = []string{"USER", "PID", "%CPU", "STAT", "START", "TIME", "COMMAND"}
	}
	for _, p := range all {
		response.Processes = append(response.Processes, row(p, bsd, time.Duration(now.Nano())))
	}
	c.json(http.StatusOK, response)
	return nil
}

// row is one process; uptime is the guest's.
func row(p container.ProcessInfo, bsd bool, uptime time.Duration) []string {
	const tick = time.Second / ticksPerSecond
	age := max(uptime-time.Duration(p.Start)*tick, tick)
	used := time.Duration(p.Ticks) * tick
	share := 100 * float64(used) / float64(age)
	began := time.Now().Add(-age).UTC().Format("15:04")
	taken := fmt.Sprintf("%02d:%02d:%02d", int(used.Hours()), int(used.Minutes())%60, int(used.Seconds())%60)
	command, terminal := strings.Join(p.Args, " "), "?"
	if command == "" {
		command = "[" + p.Name + "]"
	}
	if p.Terminal {
		terminal = "pts"
	}
	uid, pid := strconv.FormatUint(uint64(p.UID), 10), strconv.Itoa(p.PID)
	if bsd {
		return []string{uid, pid, fmt.Sprintf("%.1f", share), string(p.State), began, taken, command}
	}
	return []string{uid, pid, strconv.Itoa(p.Parent), strconv.Itoa(int(share)), began, terminal, taken, command}
}
