package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// Folders of the agent's, in the initramfs.
const (
	cgroupDir    = "/sys/fs/cgroup"
	containerDir = "/container"
)

const fenced = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV

var systemMounts = []struct {
	target, fstype string
	flags          uintptr
	data           string
}{
	{"/proc", "proc", fenced, ""},
	{"/sys", "sysfs", fenced, ""},
	{"/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755"},
	{"/run", "tmpfs", fenced, "mode=0755,size=1m"},
	{"/sys/kernel/config", "configfs", fenced, ""},
	{cgroupDir, "cgroup2", fenced, ""},
}

// sysctls are of the whole guest: the container cannot change them.
// Source: Linux 6.12, Documentation/admin-guide/sysctl.
var sysctls = []struct{ name, value string }{
	{"user/max_user_namespaces", "0"}, // docker's seccomp profile forbids them
	{"kernel/dmesg_restrict", "1"},
	{"kernel/kptr_restrict", "2"},
	{"kernel/perf_event_paranoid", "2"},
	// As docker: any user may serve on any port. The agent's, which is 1, stays root's.
	{"net/ipv4/ip_unprivileged_port_start", "2"},
	{"net/ipv4/ping_group_range", "0 2147483647"},
	// Addresses come from the spec, not from the host's router advertisements.
	{"net/ipv6/conf/all/accept_ra", "0"},
	{"net/ipv6/conf/default/accept_ra", "0"},
	{"net/ipv6/conf/all/autoconf", "0"},
	{"net/ipv6/conf/default/autoconf", "0"},
	{"net/ipv4/conf/all/accept_redirects", "0"},
	{"net/ipv4/conf/default/accept_redirects", "0"},
	{"net/ipv6/conf/all/accept_redirects", "0"},
	{"net/ipv6/conf/default/accept_redirects", "0"},
}

func (a *agent) mountSystem(context.Context) error {
	for _, m := range systemMounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return nil
}

func setSysctls(context.Context) error {
	for _, s := range sysctls {
		if err := os.WriteFile(filepath.Join("/proc/sys", s.name), []byte(s.value), 0); err != nil {
			return fmt.Errorf("setting %s: %w", s.name, err)
		}
	}
	return nil
}

// What the agent keeps for itself of the guest, beside 1/32 of the memory.
const (
	keptMemory = 32 << 20 // bytes
	mostPIDs   = 16384    // of the kernel's 32768
)

// cgroupLimits are the files of the container's cgroup that bound it. Even without a
// word of the spec the workload cannot take all of the guest from the agent, which
// then could not say how it ended.
// Source: Linux 6.12, Documentation/admin-guide/cgroup-v2.rst.
func cgroupLimits(r *pod.Resources, total uint64) map[string]string {
	most := total - min(total/2, keptMemory+total/32)
	limits := map[string]string{"memory.max": fmt.Sprint(most), "pids.max": fmt.Sprint(mostPIDs)}
	if r == nil {
		return limits
	}
	if r.Memory != 0 {
		limits["memory.max"] = fmt.Sprint(min(r.Memory, most))
	}
	if r.PIDs != 0 {
		limits["pids.max"] = fmt.Sprint(min(r.PIDs, mostPIDs))
	}
	if r.CPU != 0 {
		limits["cpu.max"] = fmt.Sprintf("%d 100000", r.CPU*100) // microseconds of 100 ms
	}
	return limits
}

// containerCgroup makes the container's cgroup, with what controllers there are, and
// returns its folder.
func containerCgroup(r *pod.Resources) (string, error) {
	controllers, err := os.ReadFile(filepath.Join(cgroupDir, "cgroup.controllers"))
	if err != nil {
		return "", err
	}
	for _, c := range fields(controllers) {
		// One that cannot be enabled, as misc without a root cgroup, is left out.
		err := os.WriteFile(filepath.Join(cgroupDir, "cgroup.subtree_control"), []byte("+"+c), 0)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) {
			return "", fmt.Errorf("enabling the %s controller: %w", c, err)
		}
	}
	dir := filepath.Join(cgroupDir, "container")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "", err
	}
	for name, value := range cgroupLimits(r, info.Totalram*uint64(info.Unit)) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
			return "", fmt.Errorf("bounding the container: %w", err)
		}
	}
	return dir, nil
}
