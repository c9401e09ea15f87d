package container

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastSyscall is the highest number that the kernel of the boot stack has. What is
// above is of a later kernel, and no workload's.
// Source: Linux 6.12, arch/x86/entry/syscalls/syscall_64.tbl (mseal).
const lastSyscall = 462

// Numbers between these have no system call but uretprobe: a probe's way back, and
// there are no probes. Source: as above.
const lastOld, firstNew = unix.SYS_RSEQ, unix.SYS_PIDFD_SEND_SIGNAL

// denied are the system calls that docker's default profile lets no container make,
// but by capabilities that a spec cannot give (pod.Spec). The profile is a list of what
// is allowed; here, with one kernel whose last number is known, what is left over is
// shorter.
// Source: github.com/moby/profiles, seccomp, v0.3.0.
var denied = []uint32{
	// File systems.
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT,
	unix.SYS_FSPICK, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_FANOTIFY_INIT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_LOOKUP_DCOOKIE,
	// Namespaces, and names that belong to one.
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	// Other processes: their files, memory, and where it lies.
	unix.SYS_PIDFD_GETFD, unix.SYS_KCMP, unix.SYS_PROCESS_MADVISE, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
	// The kernel: its code, log, keys, hooks, ports, and its end.
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_SYSLOG,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_LSM_GET_SELF_ATTR, unix.SYS_LSM_SET_SELF_ATTR, unix.SYS_LSM_LIST_MODULES,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_IOPERM, unix.SYS_IOPL, unix.SYS_REBOOT,
	// What is old, much of it gone from the kernel.
	unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS__SYSCTL, unix.SYS_NFSSERVCTL, unix.SYS_CREATE_MODULE,
	unix.SYS_GET_KERNEL_SYMS, unix.SYS_QUERY_MODULE, unix.SYS_GETPMSG, unix.SYS_PUTPMSG, unix.SYS_AFS_SYSCALL,
	unix.SYS_TUXCALL, unix.SYS_SECURITY, unix.SYS_VSERVER,
}

// deniedWithout are those that a capability gives. Source: as above.
var deniedWithout = []struct {
	capability string
	calls      []uint32
}{
	{"CAP_SYS_CHROOT", []uint32{unix.SYS_CHROOT}},
	{"CAP_SYS_NICE", []uint32{unix.SYS_GET_MEMPOLICY, unix.SYS_SET_MEMPOLICY, unix.SYS_SET_MEMPOLICY_HOME_NODE, unix.SYS_MBIND}},
	{"CAP_SYS_PACCT", []uint32{unix.SYS_ACCT}},
	{"CAP_SYS_TIME", []uint32{unix.SYS_CLOCK_SETTIME, unix.SYS_SETTIMEOFDAY}},
	{"CAP_SYS_TTY_CONFIG", []uint32{unix.SYS_VHANGUP}},
}

// namespaces are clone's flags that make some.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// families of sockets that are for a container: those of the boot stack's kernel, and
// packets, which that kernel has not and says so. AF_VSOCK leads to the host, who is the
// agent's to talk to.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET}

// personalities that change nothing of security: Linux, with or without 32-bit
// uname, and the question which one it is.
var personalities = []uint32{0, 0x0008, 0x20000, 0x20008, 0xffffffff}

// Answers of the filter. Source: Linux 6.12, include/uapi/linux/seccomp.h.
const (
	allow   = 0x7fff0000
	kill    = 0x80000000 // of the process
	errno   = 0x00050000
	refuse  = errno | uint32(unix.EPERM)
	unknown = errno | uint32(unix.ENOSYS)
)

// Where the filter finds what is asked. Source: as above, struct seccomp_data.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16 // 64 bits each, the low half first
)

const x32 = 0x40000000 // bit of another ABI's numbers

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func ret(answer uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: answer}
}

// on skips n instructions unless the comparison holds.
func on(op uint16, k uint32, n uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jf: n}
}

// byArgument answers a system call by its first argument: one of values, or another.
// The kernel takes these arguments as 32 bits.
func byArgument(nr uint32, op uint16, values []uint32, one, other uint32) []unix.SockFilter {
	f := []unix.SockFilter{on(unix.BPF_JEQ, nr, uint8(2+2*len(values))), load(offsetArgs)}
	for _, v := range values {
		f = append(f, on(op, v, 1), ret(one))
	}
	return append(f, ret(other))
}

// filter is the program that the kernel asks about each system call of a workload with
// those capabilities.
func filter(capabilities []string) []unix.SockFilter {
	f := []unix.SockFilter{
		load(offsetArch), on(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64, 1),
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 1},
		ret(kill),
		load(offsetNr), on(unix.BPF_JGE, x32, 1), ret(unknown),
		on(unix.BPF_JGT, lastSyscall, 1), ret(unknown),
		on(unix.BPF_JGT, lastOld, 2),
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: firstNew, Jt: 1},
		ret(unknown),
		// Its flags are in memory, where no filter sees them; libraries do without.
		on(unix.BPF_JEQ, unix.SYS_CLONE3, 1), ret(unknown),
	}
	f = append(f, byArgument(unix.SYS_CLONE, unix.BPF_JSET, []uint32{namespaces}, refuse, allow)...)
	f = append(f, byArgument(unix.SYS_SOCKET, unix.BPF_JEQ, families, allow, refuse)...)
	f = append(f, byArgument(unix.SYS_PERSONALITY, unix.BPF_JEQ, personalities, allow, refuse)...)
	for _, nr := range denied {
		f = append(f, on(unix.BPF_JEQ, nr, 1), ret(refuse))
	}
	for _, d := range deniedWithout {
		if slices.Contains(capabilities, d.capability) {
			continue
		}
		for _, nr := range d.calls {
			f = append(f, on(unix.BPF_JEQ, nr, 1), ret(refuse))
		}
	}
	return append(f, ret(allow))
}

// fenceSyscalls puts the filter over this thread and what it becomes. The thread must
// have CAP_SYS_ADMIN still: then set-uid programs go on to work, as with docker.
func fenceSyscalls(capabilities []string) error {
	f := filter(capabilities)
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	const setFilter, specAllow = 1, 1 << 2
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, setFilter, specAllow, uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return fmt.Errorf("setting the filter of system calls: %w", e)
	}
	return nil
}
