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
func Init() int {
	// Namespaces, capabilities and the session keyring belong to a thread.
	runtime.LockOSThread()
	for _, fd := range []int{configFD, statusFD} {
		unix.CloseOnExec(fd)
	}
	err := become(os.NewFile(configFD, "config"))
	s := status{Reason: err.Error()}
	if execErr, ok := errors.AsType[*ExecError](err); ok {
		s.Exit = execErr.Exit
	}
	if err := json.NewEncoder(os.NewFile(statusFD, "status")).Encode(s); err != nil {
		return 1
	}
	return max(1, s.Exit)
}

// become makes this process the workload. The order matters: nothing of the
// container's is looked at before the root is the container's, and nothing is
// mounted after capabilities are gone.
func become(config io.Reader) error {
	data, err := io.ReadAll(config)
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	var mounts []attached
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"unsharing the cgroup namespace", func() error { return unix.Unshare(unix.CLONE_NEWCGROUP) }},
		{"opening mounts", func() (err error) { mounts, err = openMounts(c.Mounts); return err }},
		{"changing the root", func() error { return changeRoot(c.Root) }},
		{"mounting", mountAll},
		{"mounting", func() error { return attachMounts(mounts) }},
		{"setting the host name", func() error { return unix.Sethostname([]byte(c.Hostname)) }},
		{"writing /etc", func() error { return writeEtc(c) }},
		{"making a session keyring", newKeyring},
		{"setting limits", func() error { return setLimits(c.Process.Rlimits) }},
		{"opening standard input", openStdin},
		{"making the root read-only", func() error { return protectRoot(c.ReadOnly) }},
		{"closing the agent's descriptors", closeOthers},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return execute(c.Process)
}

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

func openStdin() error {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Dup3(fd, 0, 0)
}

// setLimits sets what systemd gives docker's containers: some programs close
// or poll every descriptor that they may have.
// Those of the spec take their place.
func setLimits(own []pod.Rlimit) error {
	unix.Umask(0o022)
	const nofile, nofileMax = 1024, 524288
	for _, limit := range []struct {
		resource  int
		soft, max uint64
	}{
		{unix.RLIMIT_NOFILE, nofile, nofileMax},
		{unix.RLIMIT_NPROC, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
		{unix.RLIMIT_CORE, 0, unix.RLIM_INFINITY},
	} {
		if err := unix.Setrlimit(limit.resource, &unix.Rlimit{Cur: limit.soft, Max: limit.max}); err != nil {
			return err
		}
	}
	for _, l := range own {
		limit := unix.Rlimit{Cur: uint64(l.Soft), Max: uint64(l.Hard)} // -1 is RLIM_INFINITY
		if err := unix.Setrlimit(slices.Index(pod.RlimitNames, l.Name), &limit); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
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

// execute takes the user's identity and executes the workload.
func execute(p pod.Process) error {
	u, err := resolveUser(p.User, p.Groups)
	if err != nil {
		return fmt.Errorf("%w", err)
	}
	env := withHome(p.Env, u.Home)
	// /dev/stdout opens the pipe anew, which its owner alone may.
	for _, fd := range []int{1, 2} {
		if err := unix.Fchown(fd, u.Uid, u.Gid); err != nil {
			return fmt.Errorf("giving descriptor %d to the user: %w", fd, err)
		}
	}
	if err := os.MkdirAll(p.WorkingDir, 0o755); err != nil && !errors.Is(err, unix.EROFS) { // entering it tells
		return fmt.Errorf("making the working directory: %w", err)
	}
	if err := unix.Chdir(p.WorkingDir); err != nil {
		return fmt.Errorf("entering the working directory %s: %w", p.WorkingDir, err)
	}
	if p.Seccomp == pod.SeccompDefault {
		if err := fenceSyscalls(p.Capabilities); err != nil {
			return err
		}
	}
	if err := takeIdentity(u, p.Capabilities); err != nil {
		return fmt.Errorf("%w", err)
	}
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("giving up new privileges: %w", err)
		}
	}
	file, err := lookup(p.Args[0], env)
	if err != nil {
		return err
	}
	return execError(p.Args[0], unix.Exec(file, p.Args, env))
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
