package compose

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// mapping leads from keys of a service to an option of summon, which is docker's
// where docker has it. Keys whose option summon has not are not supported.
type mapping struct {
	keys   []string // patterns, from the service on
	option string
	values func(types.ServiceConfig) ([]string, error)
}

func mappings() []mapping {
	return []mapping{
		{[]string{"environment.**", "env_file.**"}, "env", environment},
		{[]string{"ports.[].target", "ports.[].published", "ports.[].host_ip", "ports.[].protocol", "ports.[].mode"}, "publish", ports},
		{[]string{"user"}, "user", one(func(c types.ServiceConfig) string { return c.User })},
		{[]string{"group_add.**"}, "group-add", func(c types.ServiceConfig) ([]string, error) { return c.GroupAdd, nil }},
		{[]string{"working_dir"}, "workdir", one(func(c types.ServiceConfig) string { return c.WorkingDir })},
		{[]string{"hostname"}, "hostname", hostname},
		{[]string{"cap_add.**"}, "cap-add", func(c types.ServiceConfig) ([]string, error) { return c.CapAdd, nil }},
		{[]string{"cap_drop.**"}, "cap-drop", func(c types.ServiceConfig) ([]string, error) { return c.CapDrop, nil }},
		{[]string{"security_opt.**"}, "security-opt", func(c types.ServiceConfig) ([]string, error) { return c.SecurityOpt, nil }},
		{[]string{"stop_signal"}, "stop-signal", one(func(c types.ServiceConfig) string { return c.StopSignal })},
		{[]string{"stop_grace_period"}, "stop-timeout", stopTimeout},
		{[]string{"read_only"}, "read-only", flag(func(c types.ServiceConfig) bool { return c.ReadOnly })},
		{[]string{"tty"}, "tty", flag(func(c types.ServiceConfig) bool { return c.Tty })},
		{[]string{"stdin_open"}, "interactive", flag(func(c types.ServiceConfig) bool { return c.StdinOpen })},
		{[]string{"tmpfs.**"}, "tmpfs", func(c types.ServiceConfig) ([]string, error) { return c.Tmpfs, nil }},
		{[]string{"shm_size"}, "shm-size", shmSize},
		{[]string{"volumes.[].target", "volumes.[].type", "volumes.[].source", "volumes.[].bind.**", "volumes.[].volume.**", "volumes.[].read_only", "volumes.[].tmpfs.size", "volumes.[].tmpfs.mode"}, "mount", volumes},
		{[]string{"ulimits.**"}, "ulimit", ulimits},
		{[]string{"extra_hosts.**"}, "add-host", func(c types.ServiceConfig) ([]string, error) { return c.ExtraHosts.AsList(":"), nil }},
		{[]string{"dns.**"}, "dns", func(c types.ServiceConfig) ([]string, error) { return c.DNS, nil }},
		{[]string{"expose.**"}, "expose", func(c types.ServiceConfig) ([]string, error) { return c.Expose, nil }},
		{[]string{"dns_search.**"}, "dns-search", func(c types.ServiceConfig) ([]string, error) { return c.DNSSearch, nil }},
		{[]string{"dns_opt.**"}, "dns-option", func(c types.ServiceConfig) ([]string, error) { return c.DNSOpts, nil }},
		{[]string{"init"}, "init", flag(func(c types.ServiceConfig) bool { return c.Init != nil && *c.Init })},
		{[]string{"restart"}, "restart", one(func(c types.ServiceConfig) string { return c.Restart })},
		{[]string{"healthcheck.test.**"}, "health-cmd", healthTest("CMD-SHELL")},
		{[]string{"healthcheck.test.**"}, "health-exec", healthTest("CMD")},
		{[]string{"healthcheck.disable"}, "no-healthcheck", flag(noHealth)},
		{[]string{"healthcheck.interval"}, "health-interval", health(func(h *types.HealthCheckConfig) *types.Duration { return h.Interval })},
		{[]string{"healthcheck.timeout"}, "health-timeout", health(func(h *types.HealthCheckConfig) *types.Duration { return h.Timeout })},
		{[]string{"healthcheck.start_period"}, "health-start-period", health(func(h *types.HealthCheckConfig) *types.Duration { return h.StartPeriod })},
		{[]string{"healthcheck.start_interval"}, "health-start-interval", health(func(h *types.HealthCheckConfig) *types.Duration { return h.StartInterval })},
		{[]string{"healthcheck.retries"}, "health-retries", healthRetries},
		{[]string{"pids_limit", "deploy.resources.limits.pids"}, "pids-limit", pidsLimit},
		{[]string{"mem_limit", "deploy.resources.limits.memory"}, "memory", memory},
		{[]string{"cpus", "deploy.resources.limits.cpus"}, "vcpus", vcpus},
		{[]string{"cpus"}, "cpus", quota},
	}
}

func one(value func(types.ServiceConfig) string) func(types.ServiceConfig) ([]string, error) {
	return func(c types.ServiceConfig) ([]string, error) {
		if v := value(c); v != "" {
			return []string{v}, nil
		}
		return nil, nil
	}
}

func flag(value func(types.ServiceConfig) bool) func(types.ServiceConfig) ([]string, error) {
	return func(c types.ServiceConfig) ([]string, error) {
		if value(c) {
			return []string{"true"}, nil
		}
		return nil, nil
	}
}

// environment has the entries of env_file too. One without a value is not set here
// either, and takes the image's away, as NAME alone does.
func environment(c types.ServiceConfig) ([]string, error) {
	var entries []string
	for _, name := range slices.Sorted(maps.Keys(c.Environment)) {
		if value := c.Environment[name]; value != nil {
			entries = append(entries, name+"="+*value)
		}
	}
	return entries, nil
}

func ports(c types.ServiceConfig) ([]string, error) {
	var all []string
	for i, p := range c.Ports {
		if p.Mode != "" && p.Mode != "ingress" && p.Mode != "host" {
			return nil, inItem(i, ".mode", "%q", p.Mode)
		}
		if strings.Contains(p.Published, "-") {
			return nil, inItem(i, ".published", "%q: a range of ports to choose from is not supported", p.Published)
		}
		s := strconv.FormatUint(uint64(p.Target), 10)
		switch {
		case p.HostIP != "":
			s = p.HostIP + ":" + p.Published + ":" + s
		case p.Published != "":
			s = p.Published + ":" + s
		}
		if p.Protocol != "" {
			s += "/" + p.Protocol
		}
		all = append(all, s)
	}
	return all, nil
}

// hostname is the service's name unless the file says otherwise.
func hostname(c types.ServiceConfig) ([]string, error) {
	if c.Hostname == "" {
		return []string{c.Name}, nil
	}
	return []string{c.Hostname}, nil
}

func stopTimeout(c types.ServiceConfig) ([]string, error) {
	if c.StopGracePeriod == nil {
		return nil, nil
	}
	d := time.Duration(*c.StopGracePeriod)
	if d%time.Second != 0 {
		return nil, fmt.Errorf("%v: whole seconds are wanted", d)
	}
	return []string{strconv.Itoa(int(d / time.Second))}, nil
}

// itemError is what is wrong with an item of a list.
type itemError struct {
	where string // such as "[0].mode"
	err   error
}

func (e *itemError) Error() string { return e.where + ": " + e.err.Error() }
func (e *itemError) Unwrap() error { return e.err }

func inItem(i int, key, format string, args ...any) error {
	return &itemError{fmt.Sprintf("[%d]%s", i, key), fmt.Errorf(format, args...)}
}

// volumes are what is memory of the guest's. The host's files do not reach into it.
func volumes(c types.ServiceConfig) ([]string, error) {
	var all []string
	for i, v := range c.Volumes {
		switch v.Type {
		case types.VolumeTypeTmpfs:
		case types.VolumeTypeVolume:
			return nil, inItem(i, "", "a volume is encrypted with an owner's key: name it in %s, as mount: type=volume,source=…,target=%s,size=…,key=…", extensionKey, v.Target)
		default:
			return nil, inItem(i, "", "%s: the host's files do not reach into a guest", v.Type)
		}
		m := "type=tmpfs,target=" + v.Target
		if v.Tmpfs != nil && v.Tmpfs.Size > 0 {
			m += ",tmpfs-size=" + strconv.FormatInt(int64(v.Tmpfs.Size), 10)
		}
		if v.Tmpfs != nil && v.Tmpfs.Mode > 0 {
			m += ",tmpfs-mode=" + strconv.FormatUint(uint64(v.Tmpfs.Mode), 8)
		}
		if v.ReadOnly {
			m += ",readonly"
		}
		all = append(all, m)
	}
	return all, nil
}

func shmSize(c types.ServiceConfig) ([]string, error) {
	if c.ShmSize == 0 {
		return nil, nil
	}
	return []string{strconv.FormatInt(int64(c.ShmSize), 10)}, nil
}

func ulimits(c types.ServiceConfig) ([]string, error) {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(c.Ulimits)) {
		l := c.Ulimits[name]
		if l.Single != 0 {
			all = append(all, fmt.Sprintf("%s=%d", name, l.Single))
			continue
		}
		all = append(all, fmt.Sprintf("%s=%d:%d", name, l.Soft, l.Hard))
	}
	return all, nil
}

// noHealth says that the image's check is switched off.
func noHealth(c types.ServiceConfig) bool {
	h := c.HealthCheck
	return h != nil && (h.Disable || len(h.Test) > 0 && h.Test[0] == "NONE")
}

// healthTest is the check in one of its two forms: a line of the shell, or a program
// and its arguments.
func healthTest(form string) func(types.ServiceConfig) ([]string, error) {
	return func(c types.ServiceConfig) ([]string, error) {
		h := c.HealthCheck
		switch {
		case h == nil || len(h.Test) == 0 || noHealth(c):
			return nil, nil
		case h.Test[0] != "CMD-SHELL" && h.Test[0] != "CMD":
			return nil, fmt.Errorf("%q is none of CMD, CMD-SHELL and NONE", h.Test[0])
		case len(h.Test) < 2, h.Test[0] == "CMD-SHELL" && len(h.Test) > 2:
			return nil, fmt.Errorf("%d words after %s", len(h.Test)-1, h.Test[0])
		case h.Test[0] != form:
			return nil, nil
		}
		return h.Test[1:], nil
	}
}

func health(value func(*types.HealthCheckConfig) *types.Duration) func(types.ServiceConfig) ([]string, error) {
	return func(c types.ServiceConfig) ([]string, error) {
		if c.HealthCheck == nil || value(c.HealthCheck) == nil {
			return nil, nil
		}
		return []string{time.Duration(*value(c.HealthCheck)).String()}, nil
	}
}

func healthRetries(c types.ServiceConfig) ([]string, error) {
	if c.HealthCheck == nil || c.HealthCheck.Retries == nil {
		return nil, nil
	}
	return []string{strconv.FormatUint(*c.HealthCheck.Retries, 10)}, nil
}

// limits are what the service may give in a second place. Two values that differ
// the loader has refused.
func limits(c types.ServiceConfig) types.Resource {
	if c.Deploy == nil || c.Deploy.Resources.Limits == nil {
		return types.Resource{}
	}
	return *c.Deploy.Resources.Limits
}

func pidsLimit(c types.ServiceConfig) ([]string, error) {
	n := cmp.Or(c.PidsLimit, limits(c).Pids)
	if n == 0 {
		return nil, nil
	}
	return []string{strconv.FormatInt(n, 10)}, nil
}

// memory is the guest's, kernel and agent included.
func memory(c types.ServiceConfig) ([]string, error) {
	n := cmp.Or(c.MemLimit, limits(c).MemoryBytes)
	if n == 0 {
		return nil, nil
	}
	return []string{fmt.Sprintf("%dM", (int64(n)+1<<20-1)>>20)}, nil
}

func processors(c types.ServiceConfig) float64 {
	limit := limits(c).NanoCPUs
	return float64(cmp.Or(c.CPUS, limit.Value()))
}

// vcpus are whole ones, and enter the measurement.
func vcpus(c types.ServiceConfig) ([]string, error) {
	if n := processors(c); n != 0 {
		return []string{strconv.Itoa(int(math.Ceil(n)))}, nil
	}
	return nil, nil
}

// quota is for a part of a processor.
func quota(c types.ServiceConfig) ([]string, error) {
	if n := processors(c); n != math.Trunc(n) {
		return []string{strconv.FormatFloat(n, 'g', -1, 32)}, nil
	}
	return nil, nil
}

// extensionKey holds options of summon that compose has no key for: a value, or a
// list of values, for each.
const extensionKey = "x-cradle-snp"

// Files are named from the compose file's folder on, as everywhere in it.
func extension(c types.ServiceConfig, dir string, has func(string) bool) ([]string, error) {
	fileOptions := []string{"client", "env-file", "id-auth", "id-block", "owner", "stack"}
	value, there := c.Extensions[extensionKey]
	if !there {
		return nil, nil
	}
	given, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("a mapping of summon's options is wanted")
	}
	var options []string
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !has(name) {
			return nil, fmt.Errorf("%s: summon has no such option", name)
		}
		values, isList := given[name].([]any)
		if !isList {
			values = []any{given[name]}
		}
		for _, v := range values {
			switch v.(type) {
			case string, int, int64, uint64, float64, bool:
				text := fmt.Sprint(v)
				if slices.Contains(fileOptions, name) && !filepath.IsAbs(text) {
					text = filepath.Join(dir, text)
				}
				options = append(options, "--"+name+"="+text)
			default:
				return nil, fmt.Errorf("%s: a value or a list of values is wanted", name)
			}
		}
	}
	return options, nil
}

// secrets are what an owner hands over: compose calls them external.
func secrets(c types.ServiceConfig, all types.Secrets) []string {
	var options []string
	for _, s := range c.Secrets {
		name := cmp.Or(all[s.Source].Name, s.Source)
		option := name
		target := cmp.Or(s.Target, s.Source)
		if !filepath.IsAbs(target) {
			target = "/run/secrets/" + target
		}
		option += ",target=" + target
		if s.Mode != nil {
			option += ",mode=" + strconv.FormatUint(uint64(*s.Mode), 8)
		}
		if s.UID != "" {
			option += ",uid=" + s.UID
		}
		if s.GID != "" {
			option += ",gid=" + s.GID
		}
		options = append(options, "--secret="+option)
	}
	return options
}
