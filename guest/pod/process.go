package pod

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Rlimit is a limit of the workload's resources (getrlimit(2)).
type Rlimit struct {
	Name string `json:"name"` // RLIMIT_NOFILE and so on
	Soft int64  `json:"soft"` // Unlimited is no limit
	Hard int64  `json:"hard"`
}

// Unlimited is a limit that there is not.
const Unlimited = -1

// RlimitNames are the names of limits, in the order of their numbers.
// Source: Linux 6.12, include/uapi/asm-generic/resource.h.
var RlimitNames = []string{
	"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS",
	"RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS",
	"RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
}

// Seccomp says what system calls the workload has.
type Seccomp string

// The values of Seccomp.
const (
	SeccompDefault    Seccomp = ""           // what docker leaves a container, see docs/spec/agent.md
	SeccompUnconfined Seccomp = "unconfined" // all
)

// Resources bound what the container takes of the guest, beside what the agent keeps
// for itself. Zero is no bound of the spec's.
type Resources struct {
	Memory uint64 `json:"memory,omitempty"` // bytes
	PIDs   uint64 `json:"pids,omitempty"`   // processes and threads
	// CPU is the processor time of a second of time, in milliseconds: 1500 is one
	// processor and a half.
	CPU uint64 `json:"cpu,omitempty"`
}

// Host is a line of /etc/hosts.
type Host struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

// Limits of what a process is given.
const (
	MaxStopTimeout = 3600 // seconds
	MaxGroups      = 64
	MaxHosts       = 256
	MinMemory      = 4 << 20 // bytes
	minCPU         = 10      // milliseconds of a second
	maxNumber      = 1<<53 - 1
)

func (p Process) checkLimits(bad func(format string, args ...any)) {
	for i, g := range p.Groups {
		if g == "" || strings.ContainsAny(g, "\x00\n:,") || slices.Contains(p.Groups[:i], g) {
			bad("process.groups[%d]: %q is not a group, or stands twice", i, g)
		}
	}
	if p.Groups != nil && len(p.Groups) == 0 || len(p.Groups) > MaxGroups {
		bad("process.groups: %d, want 1 to %d, or none at all", len(p.Groups), MaxGroups)
	}
	if p.Seccomp != SeccompDefault && p.Seccomp != SeccompUnconfined {
		bad("process.seccomp: %q is not %q; left out, it is the agent's own", p.Seccomp, SeccompUnconfined)
	}
	if p.StopTimeout > MaxStopTimeout {
		bad("process.stopTimeout: %d s, more than %d", p.StopTimeout, MaxStopTimeout)
	}
	if p.Rlimits != nil && len(p.Rlimits) == 0 {
		bad("process.rlimits: empty; it is left out instead")
	}
	for i, l := range p.Rlimits {
		at := fmt.Sprintf("process.rlimits[%d]", i)
		if !slices.Contains(RlimitNames, l.Name) {
			bad("%s.name: unknown limit %q", at, l.Name)
		}
		if slices.ContainsFunc(p.Rlimits[:i], func(other Rlimit) bool { return other.Name == l.Name }) {
			bad("%s.name: %s stands twice", at, l.Name)
		}
		for _, v := range []int64{l.Soft, l.Hard} {
			if v < Unlimited || v > maxNumber {
				bad("%s: %d is neither -1 nor 0 to 2^53-1", at, v)
			}
		}
		if l.Hard != Unlimited && (l.Soft == Unlimited || l.Soft > l.Hard) {
			bad("%s: soft limit %d is above the hard one, %d", at, l.Soft, l.Hard)
		}
	}
}

func (s Spec) checkResources(bad func(format string, args ...any)) {
	if r := s.Resources; r != nil {
		if *r == (Resources{}) {
			bad("resources: empty; it is left out instead")
		}
		if r.Memory != 0 && r.Memory < MinMemory || r.Memory > maxNumber {
			bad("resources.memory: %d bytes, want %d to 2^53-1", r.Memory, MinMemory)
		}
		if r.PIDs > 1<<22 {
			bad("resources.pids: %d, more than 2^22", r.PIDs)
		}
		if r.CPU != 0 && r.CPU < minCPU || r.CPU > 1_000_000 {
			bad("resources.cpu: %d ms of a second, want %d to 1000000", r.CPU, minCPU)
		}
	}
	if s.Network.Hosts != nil && len(s.Network.Hosts) == 0 || len(s.Network.Hosts) > MaxHosts {
		bad("network.hosts: %d, want 1 to %d, or none at all", len(s.Network.Hosts), MaxHosts)
	}
	for i, h := range s.Network.Hosts {
		if !hostLabels(h.Name) {
			bad("network.hosts[%d].name: %q is not a host name", i, h.Name)
		}
		if !h.Address.IsValid() || h.Address.Zone() != "" {
			bad("network.hosts[%d].address: not an address", i)
		}
	}
	for i, name := range s.Network.Search {
		if !hostLabels(name) {
			bad("network.search[%d]: %q is not a domain", i, name)
		}
	}
	for i, option := range s.Network.Options {
		if len(option) > 253 || !optionRE().MatchString(option) {
			bad("network.options[%d]: %q is not an option of the resolver", i, option)
		}
	}
	if s.Network.Options != nil && len(s.Network.Options) == 0 || len(s.Network.Options) > 32 {
		bad("network.options: %d, want 1 to 32, or none at all", len(s.Network.Options))
	}
	if s.Network.Search != nil && len(s.Network.Search) == 0 || len(s.Network.Search) > 32 {
		bad("network.search: %d, want 1 to 32, or none at all", len(s.Network.Search))
	}
}

// hostLabels says whether a name is one of labels with dots between.
func hostLabels(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > 63 || !labelRE().MatchString(label) {
			return false
		}
	}
	return true
}
