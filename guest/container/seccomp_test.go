package container

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

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
	{"personality, asked", unix.SYS_PERSONALITY, [3]uintptr{0xffffffff}, 0},
	{"personality without randomisation", unix.SYS_PERSONALITY, [3]uintptr{0x40000}, unix.EPERM},
	{"clone with a namespace", unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUTS | unix.CLONE_SIGHAND}, unix.EPERM},
	{"clone that is wrong", unix.SYS_CLONE, [3]uintptr{unix.CLONE_SIGHAND}, 0},
	{"clone3", unix.SYS_CLONE3, [3]uintptr{}, unix.ENOSYS},
	{"unshare", unix.SYS_UNSHARE, [3]uintptr{1}, unix.EPERM},
	{"setns", unix.SYS_SETNS, [3]uintptr{^uintptr(0)}, unix.EPERM},
	{"mount", unix.SYS_MOUNT, [3]uintptr{}, unix.EPERM},
	{"open_tree", unix.SYS_OPEN_TREE, [3]uintptr{^uintptr(0)}, unix.EPERM},
	{"keyctl", unix.SYS_KEYCTL, [3]uintptr{9999}, unix.EPERM},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, [3]uintptr{}, unix.EPERM},
	{"mbind", unix.SYS_MBIND, [3]uintptr{1, 1, 99}, unix.EPERM},
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
	for _, a := range attempts {
		_, _, e := unix.RawSyscall6(a.nr, a.args[0], a.args[1], a.args[2], 0, 0, 0)
		fmt.Printf("%s: %d\n", a.name, e)
	}
	os.Exit(0)
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
	if nice := answers(t, "with CAP_SYS_NICE"); nice["mbind"] != without["mbind"] || nice["mount"] != with["mount"] {
		t.Errorf("with CAP_SYS_NICE: mbind %s, mount %s", nice["mbind"], nice["mount"])
	}
}
