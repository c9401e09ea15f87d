package image

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// defaultPath is the PATH that docker gives a container.
// Source: github.com/moby/moby, daemon/pkg/oci/defaults.go.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Overrides changes what the image says about its process, as docker run's
// options of the same names do.
type Overrides struct {
	Args       []string // in place of the image's Cmd
	Entrypoint *string  // in place of the image's Entrypoint, and of Cmd; "" is none
	Env        []EnvVar // later ones win
	Hostname   string   // becomes HOSTNAME
	User       string   // if not empty
	WorkingDir string   // if not empty
	StopSignal string   // if not empty
	CapAdd     []string // names with or without CAP_
	CapDrop    []string // likewise, or ALL
}

// EnvVar is an environment entry; Unset takes away what the image has.
type EnvVar struct {
	Name, Value string
	Unset       bool
}

// Process returns the container's process.
func (img *Image) Process(o Overrides) (pod.Process, error) {
	c := img.config.Config
	entrypoint, cmd := c.Entrypoint, c.Cmd
	if o.Entrypoint != nil {
		entrypoint, cmd = nil, nil
		if *o.Entrypoint != "" {
			entrypoint = []string{*o.Entrypoint}
		}
	}
	if len(o.Args) > 0 {
		cmd = o.Args
	}
	args := slices.Concat(entrypoint, cmd)
	if len(args) == 0 || args[0] == "" {
		return pod.Process{}, fmt.Errorf("the image names no command: give one behind it")
	}
	env, err := environment(c.Env, o)
	if err != nil {
		return pod.Process{}, err
	}
	capabilities, err := capabilities(o.CapAdd, o.CapDrop)
	if err != nil {
		return pod.Process{}, err
	}
	stop, err := signalName(first(o.StopSignal, c.StopSignal, "SIGTERM"))
	if err != nil {
		return pod.Process{}, err
	}
	return pod.Process{
		Args:         args,
		Env:          env,
		WorkingDir:   path.Join("/", first(o.WorkingDir, c.WorkingDir)),
		User:         first(o.User, c.User),
		Capabilities: capabilities,
		StopSignal:   stop,
	}, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// environment merges as docker does: PATH and HOSTNAME, then the image's
// entries, then the overrides, each name at the place where it first came up.
func environment(image []string, o Overrides) ([]string, error) {
	env := []string{defaultPath, "HOSTNAME=" + o.Hostname}
	set := func(name, value string) {
		entry := name + "=" + value
		for i := range env {
			if strings.HasPrefix(env[i], name+"=") {
				env[i] = entry
				return
			}
		}
		env = append(env, entry)
	}
	for i, entry := range image {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("the image's Env[%d]: %q is not NAME=value", i, entry)
		}
		set(name, value)
	}
	for _, v := range o.Env {
		if v.Unset {
			env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, v.Name+"=") })
			continue
		}
		set(v.Name, v.Value)
	}
	return env, nil
}

// capabilities changes docker's default set, in the order of their numbers.
func capabilities(add, drop []string) ([]string, error) {
	set := map[string]bool{}
	for _, c := range pod.DefaultCapabilities {
		set[c] = true
	}
	change := func(names []string, to bool) error {
		for _, name := range names {
			c := strings.ToUpper(name)
			if c == "ALL" && !to {
				clear(set)
				continue
			}
			if !strings.HasPrefix(c, "CAP_") {
				c = "CAP_" + c
			}
			if !slices.Contains(pod.Capabilities, c) {
				return fmt.Errorf("unknown capability %q", name)
			}
			set[c] = to
		}
		return nil
	}
	if err := change(drop, false); err != nil {
		return nil, err
	}
	if err := change(add, true); err != nil {
		return nil, err
	}
	out := []string{}
	for _, c := range pod.Capabilities {
		if set[c] {
			out = append(out, c)
		}
	}
	return out, nil
}

// signalName reads a signal as images write it: TERM, SIGTERM, 15, RTMIN+3.
func signalName(s string) (string, error) {
	if n, err := strconv.Atoi(s); err == nil {
		name := unix.SignalName(unix.Signal(n))
		if name == "" {
			return "", fmt.Errorf("stop signal: no signal has the number %d", n)
		}
		return name, nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	// Linux 6.12, arch/x86/include/uapi/asm/signal.h; glibc hands out 34 to 64.
	if unix.SignalNum(name) == 0 && !strings.HasPrefix(name, "SIGRTMIN") && !strings.HasPrefix(name, "SIGRTMAX") {
		return "", fmt.Errorf("stop signal: unknown signal %q", s)
	}
	return name, nil
}

// Ports returns the ports that the image says it serves on, sorted. What is
// neither TCP nor UDP is left out.
func (img *Image) Ports() ([]pod.Port, error) {
	var ports []pod.Port
	for exposed := range img.config.Config.ExposedPorts {
		numbers, protocol, _ := strings.Cut(exposed, "/")
		protocol = first(strings.ToLower(protocol), "tcp")
		if protocol != "tcp" && protocol != "udp" {
			continue
		}
		from, to, isRange := strings.Cut(numbers, "-")
		if !isRange {
			to = from
		}
		low, err := strconv.ParseUint(from, 10, 16)
		high, err2 := strconv.ParseUint(to, 10, 16)
		if err != nil || err2 != nil || low == 0 || high < low {
			return nil, fmt.Errorf("the image's ExposedPorts: %q is not a port", exposed)
		}
		for p := low; p <= high; p++ {
			ports = append(ports, pod.Port{Port: uint16(p), Protocol: protocol})
		}
	}
	return SortPorts(ports), nil
}

// SortPorts sorts ports by number and protocol and leaves each once.
func SortPorts(ports []pod.Port) []pod.Port {
	slices.SortFunc(ports, func(a, b pod.Port) int {
		if a.Port != b.Port {
			return int(a.Port) - int(b.Port)
		}
		return strings.Compare(a.Protocol, b.Protocol)
	})
	return slices.Compact(ports)
}
