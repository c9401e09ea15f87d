package container

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// maxUserFile bounds /etc/passwd and /etc/group, in bytes.
const maxUserFile = 16 << 20

// resolveUser finds a user of the image's: user[:group], names or numbers.
func resolveUser(name string, groups []string) (*user.ExecUser, error) {
	passwd, err := openUserFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	group, err := openUserFile("/etc/group")
	if err != nil {
		return nil, err
	}
	u, err := findUser(name, passwd, group)
	if err != nil || len(groups) == 0 {
		return u, err
	}
	if group, err = openUserFile("/etc/group"); err != nil {
		return nil, err
	}
	more, err := user.GetAdditionalGroups(groups, group)
	if err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	for _, g := range more {
		if !slices.Contains(u.Sgids, g) {
			u.Sgids = append(u.Sgids, g)
		}
	}
	return u, nil
}

func findUser(name string, passwd, group io.Reader) (*user.ExecUser, error) {
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	return u, nil
}

// openUserFile reads a file of the image's. One that is missing is empty.
func openUserFile(name string) (io.Reader, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would block
	if os.IsNotExist(err) {
		return strings.NewReader(""), nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxUserFile))
	return strings.NewReader(string(b)), err
}

// withHome adds HOME unless it is there.
func withHome(env []string, home string) []string {
	for _, entry := range env {
		if strings.HasPrefix(entry, "HOME=") {
			return env
		}
	}
	return append(slices.Clone(env), "HOME="+home)
}

func pathOf(env []string) string {
	for _, entry := range env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			return path
		}
	}
	return ""
}

// takeIdentity gives up what the user must not have. The bounding set holds the
// spec's capabilities and the inheritable and ambient ones are empty, so that
// at exec root gets just the spec's and another user none (capabilities(7)).
func takeIdentity(u *user.ExecUser, names []string) error {
	for number, name := range pod.Capabilities {
		if !slices.Contains(names, name) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil {
				return fmt.Errorf("dropping %s: %w", name, err)
			}
		}
	}
	if err := checkNoMore(len(pod.Capabilities)); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing ambient capabilities: %w", err)
	}
	groups := append([]int{u.Gid}, slices.DeleteFunc(slices.Clone(u.Sgids), func(g int) bool { return g == u.Gid })...)
	if err := unix.Setgroups(groups); err != nil {
		return fmt.Errorf("setting groups: %w", err)
	}
	if err := unix.Setresgid(u.Gid, u.Gid, u.Gid); err != nil {
		return fmt.Errorf("setting the group: %w", err)
	}
	if err := unix.Setresuid(u.Uid, u.Uid, u.Uid); err != nil {
		return fmt.Errorf("setting the user: %w", err)
	}
	return limitCapabilities(u.Uid, names)
}

// checkNoMore fails where the kernel knows a capability that a spec cannot name.
func checkNoMore(next int) error {
	if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(next), 0, 0, 0); err == nil {
		return fmt.Errorf("the kernel knows a capability number %d, which this agent does not", next)
	}
	return nil
}

// limitCapabilities sets this thread's own sets, for the moments until exec.
func limitCapabilities(uid int, names []string) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if uid == 0 {
		for number, name := range pod.Capabilities {
			if slices.Contains(names, name) {
				sets[number/32].Permitted |= 1 << (number % 32)
				sets[number/32].Effective |= 1 << (number % 32)
			}
		}
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("setting capabilities: %w", err)
	}
	return nil
}
