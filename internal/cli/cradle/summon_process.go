package cradle

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/guest/pod"
)

// processFlags are summon's options for what the container's process may do and take.
type processFlags struct {
	groups, security, ulimits, hosts, search, options []string
	readOnly, init                                    bool
	stopTimeout                                       uint32
	pids                                              uint64
	memory, cpus                                      string
}

func (f *processFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.groups, "group-add", nil, "supplementary group, by name or number")
	flags.StringArrayVar(&f.security, "security-opt", nil, "no-new-privileges, or seccomp=unconfined")
	flags.StringArrayVar(&f.ulimits, "ulimit", nil, "limit as NAME=SOFT[:HARD], such as nofile=1024:4096; -1 is none")
	flags.BoolVar(&f.readOnly, "read-only", false, "make the container's root file system read-only")
	flags.BoolVar(&f.init, "init", false, "put a process before the container's own that hands on signals and waits for orphans")
	flags.Uint32Var(&f.stopTimeout, "stop-timeout", 0, "seconds from the stop signal to the end by SIGKILL (default 10)")
	flags.Uint64Var(&f.pids, "pids-limit", 0, "most processes and threads of the container")
	flags.StringVar(&f.memory, "container-memory", "", "most memory that the container takes of the guest's: SIZE as 512m")
	flags.StringVar(&f.cpus, "cpus", "", "most processors that the container takes of the guest's, as 1.5")
	flags.StringArrayVar(&f.hosts, "add-host", nil, "line of /etc/hosts, as NAME:ADDRESS")
	flags.StringSliceVar(&f.search, "dns-search", nil, "domain to search for names without a dot")
	flags.StringSliceVar(&f.options, "dns-option", nil, "option of the resolver for /etc/resolv.conf, such as ndots:2")
}

// apply puts what the flags ask for into the spec.
func (f processFlags) apply(spec *pod.Spec) error {
	var errs []error
	bad := func(flag, text string, err error) { errs = append(errs, fmt.Errorf("--%s %q: %w", flag, text, err)) }
	spec.Image.ReadOnly = f.readOnly
	p := &spec.Process
	p.Groups, p.StopTimeout, p.Init = f.groups, f.stopTimeout, f.init
	for _, option := range f.security {
		switch option {
		case "no-new-privileges", "no-new-privileges=true", "no-new-privileges:true":
			p.NoNewPrivileges = true
		case "seccomp=unconfined", "seccomp:unconfined":
			p.Seccomp = pod.SeccompUnconfined
		default:
			bad("security-opt", option, errors.New("want no-new-privileges or seccomp=unconfined"))
		}
	}
	for _, text := range f.ulimits {
		limit, err := parseUlimit(text)
		if err != nil {
			bad("ulimit", text, err)
			continue
		}
		p.Rlimits = append(p.Rlimits, limit)
	}
	for _, text := range f.hosts {
		name, address, _ := strings.Cut(text, ":")
		a, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if err != nil {
			bad("add-host", text, err)
			continue
		}
		spec.Network.Hosts = append(spec.Network.Hosts, pod.Host{Name: name, Address: a})
	}
	spec.Network.Search, spec.Network.Options = f.search, f.options
	r, err := f.resources()
	if r != (pod.Resources{}) {
		spec.Resources = &r
	}
	return errors.Join(append(errs, err)...)
}

func (f processFlags) resources() (pod.Resources, error) {
	r := pod.Resources{PIDs: f.pids}
	var errs []error
	if f.memory != "" {
		n, err := parseSize(f.memory)
		if err != nil {
			errs = append(errs, fmt.Errorf("--container-memory: %w", err))
		}
		r.Memory = n
	}
	if f.cpus != "" {
		n, err := strconv.ParseFloat(f.cpus, 64)
		if err != nil || !(n >= 0.01 && n <= 1000) {
			errs = append(errs, fmt.Errorf("--cpus: %q is not a number of processors from 0.01 to 1000", f.cpus))
		} else {
			r.CPU = uint64(n*1000 + 0.5)
		}
	}
	return r, errors.Join(errs...)
}

// parseUlimit reads NAME=SOFT[:HARD] as docker does: one number is both.
func parseUlimit(text string) (pod.Rlimit, error) {
	name, values, ok := strings.Cut(text, "=")
	if !ok {
		return pod.Rlimit{}, errors.New("want NAME=SOFT[:HARD]")
	}
	soft, hard, two := strings.Cut(values, ":")
	if !two {
		hard = soft
	}
	limit := pod.Rlimit{Name: "RLIMIT_" + strings.ToUpper(name)}
	for text, to := range map[*string]*int64{&soft: &limit.Soft, &hard: &limit.Hard} {
		n, err := strconv.ParseInt(*text, 10, 64)
		if err != nil {
			return pod.Rlimit{}, fmt.Errorf("%q is not a number", *text)
		}
		*to = n
	}
	return limit, nil
}
