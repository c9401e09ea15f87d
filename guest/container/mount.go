package container

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const fenced = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV

// mounts are docker's, in their order.
// Source: github.com/moby/moby, daemon/pkg/oci/defaults.go.
var mounts = []struct {
	target, fstype string
	flags          uintptr
	data           string
}{
	{"/proc", "proc", fenced, ""},
	{"/dev", "tmpfs", unix.MS_NOSUID | unix.MS_STRICTATIME, "mode=755,size=65536k"},
	{"/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
	{"/sys", "sysfs", fenced | unix.MS_RDONLY, ""},
	{"/sys/fs/cgroup", "cgroup2", fenced | unix.MS_RDONLY, ""},
	{"/dev/mqueue", "mqueue", fenced, ""},
	{"/dev/shm", "tmpfs", fenced, "mode=1777,size=65536k"},
}

// devices are the character devices of the container.
// Source: Linux 6.12, Documentation/admin-guide/devices.txt.
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

var links = []struct{ name, target string }{
	{"/dev/ptmx", "pts/ptmx"},
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"},
}

// masked are hidden, readOnly cannot be written to. Those that the kernel does
// not have are passed over.
// Source: github.com/moby/moby, daemon/pkg/oci/defaults.go.
var (
	masked = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
	readOnly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// mountAll runs when the root is the container's already: whatever symbolic
// links the image holds, they lead nowhere else.
func mountAll() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("%s: %w", m.target, err)
		}
		if m.target == "/dev" {
			if err := fillDev(); err != nil {
				return err
			}
		}
	}
	for _, path := range masked {
		if err := mask(path); err != nil {
			return fmt.Errorf("hiding %s: %w", path, err)
		}
	}
	for _, path := range readOnly {
		if err := makeReadOnly(path); err != nil {
			return fmt.Errorf("making %s read-only: %w", path, err)
		}
	}
	return nil
}

func fillDev() error {
	umask := unix.Umask(0)
	defer unix.Umask(umask)
	for _, d := range devices {
		if err := unix.Mknod("/dev/"+d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("making /dev/%s: %w", d.name, err)
		}
	}
	for _, l := range links {
		if err := os.Symlink(l.target, l.name); err != nil {
			return err
		}
	}
	return nil
}

func mask(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if info.IsDir() {
		return unix.Mount("tmpfs", path, "tmpfs", fenced|unix.MS_RDONLY, "size=0k,nr_inodes=1")
	}
	return unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
}

func makeReadOnly(path string) error {
	err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, "")
	if errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return err
	}
	return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|fenced, "")
}

// mountVolumes makes each folder a mount of its own, with what the image has there: it
// takes writes though the root does not.
func mountVolumes(dirs []string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

// writeEtc writes what docker writes. A file of the image's, or a link, gives way.
func writeEtc(c Config) error {
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"/etc/hostname":    c.Hostname + "\n",
		"/etc/hosts":       hosts(c),
		"/etc/resolv.conf": resolvConf(c.Nameservers, c.Search, c.DNSOptions),
	} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func hosts(c Config) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, a := range c.Addresses {
		fmt.Fprintf(&b, "%s\t%s\n", a, c.Hostname)
	}
	for _, h := range c.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.Address, h.Name)
	}
	return b.String()
}

func resolvConf(nameservers, search, options []string) string {
	var b strings.Builder
	for _, a := range nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.String()
}
