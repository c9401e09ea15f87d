package container

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// wrong is an argument that the kernel takes for no address, descriptor or number.
const wrong = ^uintptr(0)

// attempts are system calls with arguments that the kernel itself refuses, or that do
// nothing, and what the filter answers; without it none is refused so.
var attempts = []struct {
	name     string
	nr       uintptr
	args     [3]uintptr
	filtered syscall.Errno // 0: as without the filter
}{
	{"getpid", unix.SYS_GETPID, [3]uintptr{}, 0},
	{"socket of IPv4", unix.SYS_SOCKET, [3]uintptr{unix.AF_INET, unix.SOCK_DGRAM}, 0},
	{"socket to the host", unix.SYS_SOCKET, [3]uintptr{unix.AF_VSOCK, 99}, unix.EPERM},
	{"socket to the ciphers", unix.SYS_SOCKET, [3]uintptr{unix.AF_ALG, 99}, unix.EPERM},
	{"socket of a family unknown here", unix.SYS_SOCKET, [3]uintptr{unix.AF_BLUETOOTH, 99}, unix.EPERM},
	{"socket by 64 bits", unix.SYS_SOCKET, [3]uintptr{1<<32 | unix.AF_VSOCK, 99}, unix.EPERM},
	{"socket of the kernel's tables", unix.SYS_SOCKET, [3]uintptr{unix.AF_NETLINK, 99}, 0},
	{"personality, asked", unix.SYS_PERSONALITY, [3]uintptr{0xffffffff}, 0},
	{"personality without randomisation", unix.SYS_PERSONALITY, [3]uintptr{0x40000}, unix.EPERM},
	{"clone with a namespace", unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUTS | unix.CLONE_SIGHAND}, unix.EPERM},
	{"clone that is wrong", unix.SYS_CLONE, [3]uintptr{unix.CLONE_SIGHAND}, 0},
	{"clone3", unix.SYS_CLONE3, [3]uintptr{}, unix.ENOSYS},
	{"unshare", unix.SYS_UNSHARE, [3]uintptr{1}, unix.EPERM},
	{"setns", unix.SYS_SETNS, [3]uintptr{wrong}, unix.EPERM},
	{"mount", unix.SYS_MOUNT, [3]uintptr{}, unix.EPERM},
	{"open_tree", unix.SYS_OPEN_TREE, [3]uintptr{wrong}, unix.EPERM},
	{"keyctl", unix.SYS_KEYCTL, [3]uintptr{9999}, unix.EPERM},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, [3]uintptr{}, unix.EPERM},
	{"mbind", unix.SYS_MBIND, [3]uintptr{1, 1, 99}, unix.EPERM},
	{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [3]uintptr{wrong, wrong}, unix.EPERM},
	{"pidfd_open", unix.SYS_PIDFD_OPEN, [3]uintptr{wrong}, 0},
	{"process_madvise", unix.SYS_PROCESS_MADVISE, [3]uintptr{wrong}, unix.EPERM},
	{"process_mrelease", unix.SYS_PROCESS_MRELEASE, [3]uintptr{wrong}, 0},
	{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [3]uintptr{wrong}, 0},
	{"migrate_pages", unix.SYS_MIGRATE_PAGES, [3]uintptr{wrong}, unix.EPERM},
	{"lsm_get_self_attr", unix.SYS_LSM_GET_SELF_ATTR, [3]uintptr{wrong}, unix.EPERM},
	{"landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, [3]uintptr{wrong}, 0},
	{"sethostname", unix.SYS_SETHOSTNAME, [3]uintptr{wrong, wrong}, unix.EPERM},
	{"chroot", unix.SYS_CHROOT, [3]uintptr{wrong}, unix.EPERM},
	{"settimeofday", unix.SYS_SETTIMEOFDAY, [3]uintptr{wrong}, unix.EPERM},
	{"clock_gettime", unix.SYS_CLOCK_GETTIME, [3]uintptr{unix.CLOCK_REALTIME, wrong}, 0},
	{"rseq", unix.SYS_RSEQ, [3]uintptr{wrong}, 0},
	{"none of the kernel's", firstNew - 1, [3]uintptr{}, unix.ENOSYS},
	{"pidfd_send_signal", firstNew, [3]uintptr{wrong}, 0},
	{"a later kernel's", lastSyscall + 1000, [3]uintptr{}, unix.ENOSYS},
	{"x32's getpid", x32 | unix.SYS_GETPID, [3]uintptr{}, unix.ENOSYS},
}

// TestAttempts makes them, in a process that TestSeccomp starts.
func TestAttempts(t *testing.T) {
	mode := os.Getenv("SECCOMP_TEST")
	if mode == "" {
		return
	}
	runtime.LockOSThread()
	if mode != "without" {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := fenceSyscalls(strings.Fields(mode)[1:]); err != nil {
			t.Fatal(err)
		}
	}
	try := func(name string, nr uintptr, args [3]uintptr) {
		_, _, e := unix.RawSyscall6(nr, args[0], args[1], args[2], wrong, wrong, wrong)
		fmt.Printf("%s: %d\n", name, e)
	}
	for _, a := range attempts {
		try(a.name, a.nr, a.args)
	}
	if mode != "without" {
		for _, nr := range refusedWithout(strings.Fields(mode)[1:]) {
			try(fmt.Sprint("number ", nr), uintptr(nr), [3]uintptr{wrong, wrong, wrong})
		}
	}
	os.Exit(0)
}

// refusedWithout are the numbers that the filter refuses whatever their arguments.
func refusedWithout(capabilities []string) []uint32 {
	all := slices.Clone(denied)
	for _, d := range deniedWithout {
		if !slices.Contains(capabilities, d.capability) {
			all = append(all, d.calls...)
		}
	}
	return all
}

func answers(t *testing.T, mode string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAttempts$")
	cmd.Env = append(os.Environ(), "SECCOMP_TEST="+mode)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, e, _ := strings.Cut(strings.TrimSpace(line), ": ")
		all[name] = e
	}
	return all
}

// What the filter refuses it answers for itself; all else is the kernel's to answer.
func TestSeccomp(t *testing.T) {
	without, with := answers(t, "without"), answers(t, "with CAP_SYS_PACCT")
	want := map[string]string{}
	for _, nr := range refusedWithout([]string{"CAP_SYS_PACCT"}) {
		want[fmt.Sprint("number ", nr)] = fmt.Sprint(int(unix.EPERM))
	}
	for _, a := range attempts {
		want[a.name] = without[a.name]
		if e := a.filtered; e != 0 {
			want[a.name] = fmt.Sprint(int(e))
			if want[a.name] == without[a.name] && a.nr <= lastSyscall {
				t.Logf("%s: the kernel here answers the same", a.name)
			}
		}
	}
	if diff := cmp.Diff(want, with); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for capability, name := range map[string]string{"CAP_SYS_NICE": "mbind", "CAP_SYS_CHROOT": "chroot", "CAP_SYS_TIME": "settimeofday"} {
		given := answers(t, "with "+capability)
		if given[name] != without[name] || given["mount"] != with["mount"] {
			t.Errorf("with %s: %s %s, mount %s", capability, name, given[name], given["mount"])
		}
	}
}
