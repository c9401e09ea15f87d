package container

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// syscallNumbers are Linux' for x86-64, by name, from the source of golang.org/x/sys.
func syscallNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "unix/zsysnum_linux_amd64.go"))
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]uint32{}
	for _, m := range regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s*= (\d+)$`).FindAllStringSubmatch(string(source), -1) {
		n, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		numbers[strings.ToLower(m[1])] = uint32(n)
	}
	return numbers
}

// dockers says which system calls docker's own profile allows a container with those
// capabilities: always, or by their arguments.
func dockers(t *testing.T, capabilities []string) (always []string, sometimes []specs.LinuxSyscall) {
	t.Helper()
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}})
	if err != nil {
		t.Fatal(err)
	}
	if profile.DefaultAction != specs.ActErrno {
		t.Fatalf("the profile's default is %v", profile.DefaultAction)
	}
	for _, rule := range profile.Syscalls {
		switch {
		case rule.Action != specs.ActAllow:
		case len(rule.Args) == 0:
			always = append(always, rule.Names...)
		default:
			sometimes = append(sometimes, rule)
		}
	}
	return always, sometimes
}

// ask runs the filter over a system call with that first argument, and returns its
// answer. It knows the instructions that filter uses.
func ask(t *testing.T, f []unix.SockFilter, nr, argument uint32) uint32 {
	t.Helper()
	data := map[uint32]uint32{offsetNr: nr, offsetArch: unix.AUDIT_ARCH_X86_64, offsetArgs: argument}
	var a uint32
	for pc := 0; pc < len(f); pc++ {
		switch i := f[pc]; i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = data[i.K]
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K,
			unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			holds := map[uint16]bool{unix.BPF_JEQ: a == i.K, unix.BPF_JGT: a > i.K, unix.BPF_JGE: a >= i.K, unix.BPF_JSET: a&i.K != 0}[i.Code&0xf0]
			if holds {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		default:
			t.Fatalf("instruction %d: %+v", pc, i)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

// TestDockersProfile holds the filter against docker's own profile, call by call: with
// each set of capabilities, what docker does not allow is refused, and what docker
// allows is refused only where it is said here.
func TestDockersProfile(t *testing.T) {
	numbers := syscallNumbers(t)
	if len(numbers) < 350 {
		t.Fatalf("%d system calls", len(numbers))
	}
	sets := [][]string{nil, pod.DefaultCapabilities}
	for _, d := range deniedWithout {
		sets = append(sets, append(slices.Clone(pod.DefaultCapabilities), d.capability))
	}
	for _, capabilities := range sets {
		f := filter(capabilities)
		always, byArgument := dockers(t, capabilities)
		var sometimes []string // see TestDockersArguments
		for _, rule := range byArgument {
			sometimes = append(sometimes, rule.Names...)
		}
		var laxer, stricter []string
		for name, nr := range numbers {
			ours := ask(t, f, nr, 0) == allow
			switch {
			case ours && !slices.Contains(always, name) && !slices.Contains(sometimes, name):
				laxer = append(laxer, name)
			case !ours && nr <= lastSyscall && slices.Contains(always, name):
				stricter = append(stricter, name)
			}
		}
		slices.Sort(laxer)
		slices.Sort(stricter)
		if diff := cmp.Diff([]string(nil), laxer); diff != "" {
			t.Errorf("with %v, allowed here and not by docker:\n%s", capabilities, diff)
		}
		if diff := cmp.Diff([]string{"uretprobe"}, stricter); diff != "" {
			t.Errorf("with %v, refused here and not by docker (-want +got):\n%s", capabilities, diff)
		}
	}
}

// TestDockersArguments: what docker's profile judges by an argument, the filter judges
// the same, but that it knows fewer families of sockets.
func TestDockersArguments(t *testing.T) {
	numbers := syscallNumbers(t)
	values := []uint32{0x20008, 0xffffffff, unix.CLONE_NEWUSER | unix.CLONE_NEWNET}
	for bit := range 32 {
		values = append(values, 1<<bit)
	}
	for n := range uint32(64) { // families of sockets
		values = append(values, n)
	}
	f := filter(pod.DefaultCapabilities)
	_, sometimes := dockers(t, pod.DefaultCapabilities)
	rules := map[string][]specs.LinuxSeccompArg{}
	for _, rule := range sometimes {
		for _, name := range rule.Names {
			if len(rule.Args) != 1 || rule.Args[0].Index != 0 {
				t.Fatalf("%s: judged by %+v", name, rule.Args)
			}
			rules[name] = append(rules[name], rule.Args[0])
		}
	}
	if len(rules) != 3 {
		t.Errorf("docker judges %v by an argument: want clone, personality and socket", slices.Sorted(maps.Keys(rules)))
	}
	for name, alternatives := range rules {
		for _, v := range values {
			want := slices.ContainsFunc(alternatives, func(arg specs.LinuxSeccompArg) bool { return matches(t, arg, uint64(v)) })
			if name == "socket" {
				want = want && slices.Contains(families, v)
			}
			if got := ask(t, f, numbers[name], v) == allow; got != want {
				t.Errorf("%s(%#x): allowed %v, by docker %v", name, v, got, want)
			}
		}
	}
}

func matches(t *testing.T, arg specs.LinuxSeccompArg, v uint64) bool {
	t.Helper()
	switch arg.Op {
	case specs.OpLessThan:
		return v < arg.Value
	case specs.OpEqualTo:
		return v == arg.Value
	case specs.OpGreaterThan:
		return v > arg.Value
	case specs.OpMaskedEqual:
		return v&arg.Value == arg.ValueTwo
	}
	t.Fatalf("docker compares by %s", arg.Op)
	return false
}
