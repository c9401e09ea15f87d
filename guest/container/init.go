package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// Init is the container's init. It returns only if it did not become the
// workload, with the exit status to end with; the agent has been told why.
func Init() int { return tell(become) }

// ExecInit is Init for a further process of a container that runs.
func ExecInit() int { return tell(join) }

func tell(do func(config io.Reader) error) int {
	// Namespaces, capabilities and the session keyring belong to a thread.
	runtime.LockOSThread()
	for _, fd := range []int{configFD, statusFD, consoleFD, targetFD} {
		unix.CloseOnExec(fd)
	}
	config := os.NewFile(configFD, "config")
	err := do(config)
	config.Close() // not before: its number may be the reaper's configuration by then
	s := status{Reason: err.Error()}
	if execErr, ok := errors.AsType[*ExecError](err); ok {
		s.Exit = execErr.Exit
	}
	if err := json.NewEncoder(os.NewFile(statusFD, "status")).Encode(s); err != nil {
		return 1
	}
	return max(1, s.Exit)
}

func readConfig(r io.Reader, config any) error {
	data, err := io.ReadAll(r)
	if err == nil {
		err = json.Unmarshal(data, config)
	}
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	return nil
}

// step is a part of becoming a process of the container.
type step struct {
	what string
	do   func() error
}

func runSteps(steps []step) error {
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// become makes this process the workload. The order matters: nothing of the
// container's is looked at before the root is the container's, and nothing is
// mounted after capabilities are gone.
func become(config io.Reader) error {
	var c Config
	if err := readConfig(config, &c); err != nil {
		return err
	}
	var mounts []attached
	if err := runSteps([]step{
		{"hiding from processes of the container", hide},
		{"unsharing the cgroup namespace", func() error { return unix.Unshare(unix.CLONE_NEWCGROUP) }},
		{"opening mounts", func() (err error) { mounts, err = openMounts(c.Mounts); return err }},
		{"changing the root", func() error { return changeRoot(c.Root) }},
		{"mounting", mountAll},
		{"mounting volumes of the image", func() error { return mountVolumes(c.Volumes) }},
		{"mounting", func() error { return attachMounts(mounts) }},
		{"setting the host name", func() error { return unix.Sethostname([]byte(c.Hostname)) }},
		{"writing /etc", func() error { return writeEtc(c) }},
		{"making the working directory", func() error { return os.MkdirAll(c.Process.WorkingDir, 0o755) }},
		{"opening standard streams", func() error { return openStreams(c.Process, true) }},
		{"making the root read-only", func() error { return protectRoot(c.ReadOnly) }},
		{"making a session keyring", newKeyring},
		{"setting limits", func() error { return setLimits(c.Process.Rlimits) }},
		{"closing the agent's descriptors", closeOthers},
	}); err != nil {
		return err
	}
	return execute(c.Process, "")
}

// hide keeps processes of the container from this one, and so from its descriptors and
// the agent's program, until it is another program: only who has CAP_SYS_PTRACE may look
// into what is not dumpable (ptrace(2)).
func hide() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// changeRoot makes root the root of this mount namespace. The root of an
// initramfs cannot be pivoted away, so root is moved over it (Linux,
// Documentation/filesystems/ramfs-rootfs-initramfs.rst); from then on no path
// leads to what it covers, chroot's ".." included. What else the agent mounted
// is detached before.
func changeRoot(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	for _, mount := range []string{"/dev", "/sys", "/proc", "/run"} {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("detaching %s: %w", mount, err)
		}
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving %s: %w", root, err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// closeOthers marks every descriptor above standard error, so that the exec
// closes it.
func closeOthers() error {
	return unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
}

func newKeyring() error {
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	return err
}

// openStreams makes the standard streams that the agent has not made.
func openStreams(p pod.Process, console bool) error {
	switch {
	case p.Terminal:
		if err := openTerminal(); err != nil {
			return err
		}
		if !p.Init { // who reaps leaves it to the workload
			if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
				return err
			}
		}
		if console {
			return makeConsole()
		}
		return nil
	case p.Stdin:
		return nil
	}
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Dup3(fd, 0, 0)
}

// defaultLimits are what systemd gives docker's containers: some programs close or
// poll every descriptor that they may have.
var defaultLimits = []pod.Rlimit{
	{Name: "RLIMIT_NOFILE", Soft: 1024, Hard: 524288},
	{Name: "RLIMIT_NPROC", Soft: -1, Hard: -1},
	{Name: "RLIMIT_CORE", Soft: 0, Hard: -1},
}

// setLimits sets the spec's limits, and the default ones that it does not name.
func setLimits(limits []pod.Rlimit) error {
	unix.Umask(0o022)
	all := slices.Clone(limits)
	for _, limit := range defaultLimits {
		if !slices.ContainsFunc(limits, func(l pod.Rlimit) bool { return l.Name == limit.Name }) {
			all = append(all, limit)
		}
	}
	for _, limit := range all {
		resource := slices.Index(pod.RlimitNames, limit.Name)
		// -1 is RLIM_INFINITY.
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: uint64(limit.Soft), Max: uint64(limit.Hard)}); err != nil {
			return fmt.Errorf("%s: %w", limit.Name, err)
		}
	}
	return nil
}

// protectRoot makes the root file system read-only, where the spec says so: what is
// mounted in it stays as it is.
func protectRoot(protect bool) error {
	if !protect {
		return nil
	}
	return unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// execute takes the user's identity and executes the program, by its arguments if it
// is empty.
func execute(p pod.Process, program string) error {
	u, err := resolveUser(p.User, p.Groups)
	if err != nil {
		return err
	}
	env := withHome(p.Env, u.Home)
	// /dev/stdout opens the pipe anew, which its owner alone may.
	for fd := range 3 {
		if fd == 0 && !p.Terminal && !p.Stdin {
			continue // the container's /dev/null
		}
		if err := unix.Fchown(fd, u.Uid, u.Gid); err != nil {
			return fmt.Errorf("giving descriptor %d to the user: %w", fd, err)
		}
	}
	if err := unix.Chdir(p.WorkingDir); err != nil {
		return fmt.Errorf("entering the working directory %s: %w", p.WorkingDir, err)
	}
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("setting no_new_privs: %w", err)
		}
	}
	// The filter lets through what is left to do, and needs a privilege that is then gone.
	if p.Seccomp == pod.SeccompDefault {
		if err := fenceSyscalls(p.Capabilities); err != nil {
			return err
		}
	}
	if err := takeIdentity(u, p.Capabilities); err != nil {
		return err
	}
	if program == "" {
		if program, err = lookup(p.Args[0], env); err != nil {
			return err
		}
	}
	if p.Init {
		return reap(program, p, env)
	}
	return execError(p.Args[0], unix.Exec(program, p.Args, env))
}

// execError says as the shell does what is wrong with a program.
func execError(name string, err error) *ExecError {
	exit := ExitNotExecutable
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		exit = ExitNotFound
	}
	return &ExecError{exit, fmt.Sprintf("executing %q: %v", name, err)}
}

// lookup finds a program as execvp does: by PATH of env, unless its name holds
// a slash.
func lookup(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	found := error(unix.ENOENT)
	for _, dir := range filepath.SplitList(pathOf(env)) {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, unix.EACCES) {
			found = err
		}
	}
	return "", execError(name, found)
}

func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}
