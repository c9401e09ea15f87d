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

// denied are system calls that docker's default profile does not leave to a container
// with the capabilities that a spec may give: they act on the whole machine, or need a
// capability that no workload has, or were ways out of containers.
// Source: Docker's documentation, "Seccomp security profiles for Docker", section
// "Significant syscalls blocked by the default profile"; github.com/moby/profiles,
// seccomp, for what came later (io_uring).
var denied = []uint32{
	unix.SYS_ADD_KEY, unix.SYS_BPF, unix.SYS_CREATE_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_FANOTIFY_INIT, unix.SYS_FINIT_MODULE, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSOPEN, unix.SYS_FSPICK,
	unix.SYS_GET_KERNEL_SYMS, unix.SYS_INIT_MODULE, unix.SYS_IO_URING_ENTER,
	unix.SYS_IO_URING_REGISTER, unix.SYS_IO_URING_SETUP, unix.SYS_IOPERM, unix.SYS_IOPL, unix.SYS_KCMP,
	unix.SYS_KEXEC_FILE_LOAD, unix.SYS_KEXEC_LOAD, unix.SYS_KEYCTL, unix.SYS_LOOKUP_DCOOKIE,
	unix.SYS_MOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_MOVE_MOUNT, unix.SYS_NFSSERVCTL,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_OPEN_TREE, unix.SYS_PERF_EVENT_OPEN, unix.SYS_PIVOT_ROOT,
	unix.SYS_QUERY_MODULE, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_REBOOT, unix.SYS_REQUEST_KEY,
	unix.SYS_SETNS, unix.SYS_SWAPOFF, unix.SYS_SWAPON, unix.SYS_SYSFS, unix.SYS__SYSCTL,
	unix.SYS_SYSLOG, unix.SYS_UMOUNT2, unix.SYS_UNSHARE, unix.SYS_USELIB, unix.SYS_USERFAULTFD, unix.SYS_USTAT,
}

// deniedWithout are those that a capability gives.
var deniedWithout = []struct {
	capability string
	calls      []uint32
}{
	{"CAP_SYS_PACCT", []uint32{unix.SYS_ACCT}},
	{"CAP_SYS_TTY_CONFIG", []uint32{unix.SYS_VHANGUP}},
	{"CAP_SYS_NICE", []uint32{unix.SYS_GET_MEMPOLICY, unix.SYS_SET_MEMPOLICY, unix.SYS_SET_MEMPOLICY_HOME_NODE, unix.SYS_MBIND, unix.SYS_MOVE_PAGES}},
}

// namespaces are clone's flags that make some.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

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

// filter is the program that the kernel asks about each system call of a workload with
// those capabilities.
func filter(capabilities []string) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	ret := func(answer uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: answer}
	}
	// on skips n instructions unless the comparison holds.
	on := func(op uint16, k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jf: n}
	}
	f := []unix.SockFilter{
		load(offsetArch), on(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64, 1),
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 1},
		ret(kill),
		load(offsetNr), on(unix.BPF_JGE, x32, 1), ret(unknown),
		on(unix.BPF_JGT, lastSyscall, 1), ret(unknown),
		// Its flags are in memory, where no filter sees them; libraries do without.
		on(unix.BPF_JEQ, unix.SYS_CLONE3, 1), ret(unknown),
		on(unix.BPF_JEQ, unix.SYS_CLONE, 4), load(offsetArgs), on(unix.BPF_JSET, namespaces, 1), ret(refuse), ret(allow),
		// Sockets to the host are the agent's.
		on(unix.BPF_JEQ, unix.SYS_SOCKET, 4), load(offsetArgs), on(unix.BPF_JEQ, unix.AF_VSOCK, 1), ret(refuse), ret(allow),
		on(unix.BPF_JEQ, unix.SYS_PERSONALITY, uint8(2+2*len(personalities))), load(offsetArgs),
	}
	for _, p := range personalities {
		f = append(f, on(unix.BPF_JEQ, p, 1), ret(allow))
	}
	f = append(f, ret(refuse))
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
