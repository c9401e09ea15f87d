package container

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

const passwd = `root:x:0:0::/root:/bin/sh
app:x:1000:1001::/srv/home:/bin/sh
`

const group = `root:x:0:
app:x:1001:
extra:x:1002:app
`

func TestFindUser(t *testing.T) {
	for _, tt := range []struct {
		name string
		want user.ExecUser
		err  string
	}{
		{"", user.ExecUser{Uid: 0, Gid: 0, Sgids: []int{}, Home: "/root"}, ""},
		{"root", user.ExecUser{Uid: 0, Gid: 0, Sgids: []int{}, Home: "/root"}, ""},
		{"app", user.ExecUser{Uid: 1000, Gid: 1001, Sgids: []int{1002}, Home: "/srv/home"}, ""},
		{"1000", user.ExecUser{Uid: 1000, Gid: 1001, Sgids: []int{1002}, Home: "/srv/home"}, ""},
		{"app:extra", user.ExecUser{Uid: 1000, Gid: 1002, Sgids: []int{}, Home: "/srv/home"}, ""},
		{"app:5", user.ExecUser{Uid: 1000, Gid: 5, Sgids: []int{}, Home: "/srv/home"}, ""},
		{"7:8", user.ExecUser{Uid: 7, Gid: 8, Sgids: []int{}, Home: "/"}, ""},
		{"7", user.ExecUser{Uid: 7, Gid: 0, Sgids: []int{}, Home: "/"}, ""},
		{"nobody", user.ExecUser{}, `user "nobody"`},
		{"app:nobody", user.ExecUser{}, `user "app:nobody"`},
		{"-1", user.ExecUser{}, `user "-1"`},
		{"4294967295", user.ExecUser{}, `user "4294967295"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := findUser(tt.name, strings.NewReader(passwd), strings.NewReader(group))
			if tt.err != "" {
				if got != nil || err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, %v; want %q", got, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, *got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestOpenUserFile(t *testing.T) {
	dir := t.TempDir()
	if r, err := openUserFile(dir + "/missing"); err != nil || r.(*strings.Reader).Len() != 0 {
		t.Errorf("a missing file: %v, %v", r, err)
	}
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir + "/fifo", dir, "/dev/zero"} {
		if r, err := openUserFile(name); r != nil || err == nil {
			t.Errorf("%s: got %v, %v", name, r, err)
		}
	}
}

func TestWithHome(t *testing.T) {
	for _, tt := range []struct{ env, want []string }{
		{nil, []string{"HOME=/root"}},
		{[]string{"A=1"}, []string{"A=1", "HOME=/root"}},
		{[]string{"HOME=", "A=1"}, []string{"HOME=", "A=1"}},
		{[]string{"HOMES=1"}, []string{"HOMES=1", "HOME=/root"}},
	} {
		if diff := cmp.Diff(tt.want, withHome(tt.env, "/root")); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.env, diff)
		}
	}
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/text": 0o644, "a/both": 0o644, "b/both": 0o755, "b/prog": 0o755} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir+"/a/folder", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir + "/b")
	path := []string{"PATH=" + dir + "/missing:" + dir + "/a:" + dir + "/b"}
	for _, tt := range []struct {
		name string
		env  []string
		want string
		exit int
	}{
		{"prog", path, dir + "/b/prog", 0},
		{"both", path, dir + "/b/both", 0},
		{"text", path, "", 126},
		{"folder", path, "", 126},
		{"none", path, "", 127},
		{"prog", []string{"PATH="}, "", 127},
		{"prog", []string{"PATH=/nowhere:"}, "./prog", 0},
		{"prog", nil, "", 127},
		{"prog", []string{"XPATH=" + dir + "/b"}, "", 127},
		{"/no/such/file", nil, "/no/such/file", 0}, // exec says so
		{"./prog", nil, "./prog", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := lookup(tt.name, tt.env)
			execErr, _ := errors.AsType[*ExecError](err)
			if got != tt.want || (execErr == nil) != (tt.exit == 0) || execErr != nil && execErr.Exit != tt.exit {
				t.Errorf("got %q, %v; want %q, exit status %d", got, err, tt.want, tt.exit)
			}
		})
	}
}

func TestExecError(t *testing.T) {
	for err, want := range map[unix.Errno]int{
		unix.ENOENT: 127, unix.ENOTDIR: 127,
		unix.EACCES: 126, unix.ENOEXEC: 126, unix.EPERM: 126, unix.E2BIG: 126, unix.ENOMEM: 126,
	} {
		if got := execError("x", err); got.Exit != want {
			t.Errorf("%v: exit status %d, want %d", err, got.Exit, want)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for status, want := range map[syscall.WaitStatus]int{
		0: 0, 42 << 8: 42, 255 << 8: 255,
		9: 137, 15: 143, 0x80 | 11: 139, // 0x80: a core was written
	} {
		if got := exitStatus(status); got != want {
			t.Errorf("wait status %#x: %d, want %d", uint32(status), got, want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]unix.Signal{
		"SIGTERM": 15, "SIGQUIT": 3, "SIGWINCH": 28,
		"SIGRTMIN": 34, "SIGRTMIN+3": 37, "SIGRTMAX": 64, "SIGRTMAX-1": 63, "SIGRTMIN+30": 64,
		"": 0, "TERM": 0, "SIGNONE": 0, "SIGRTMIN-1": 0, "SIGRTMIN+31": 0, "SIGRTMAX+1": 0,
		"SIGRTMAX-31": 0, "SIGRTMIN+": 0, "SIGRTMIN+3x": 0, "SIGRTMIN++3": 0, "SIGRTMIN+-3": 0, "SIGRTMIN3": 0,
	} {
		got, err := ParseSignal(name)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d, %v; want %d", name, got, err, want)
		}
	}
}

func TestParseStatus(t *testing.T) {
	if err := parseStatus([]byte(`{"exit":0,"reason":"mounting: no"}`)); err.Error() != "mounting: no" {
		t.Errorf("got %v", err)
	}
	execErr, ok := errors.AsType[*ExecError](parseStatus([]byte(`{"exit":127,"reason":"none"}`)))
	if !ok || execErr.Exit != 127 || execErr.Reason != "none" {
		t.Errorf("got %v", execErr)
	}
	if err := parseStatus([]byte("fatal error: out of memory")); !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("got %v", err)
	}
}

func TestEtc(t *testing.T) {
	c := Config{Hostname: "vault", Addresses: []string{"10.0.2.15", "fd00::1"}, Hosts: []pod.Host{{Name: "db", Address: netip.MustParseAddr("192.0.2.7")}}}
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.2.15\tvault\nfd00::1\tvault\n192.0.2.7\tdb\n"
	if got := hosts(c); got != want {
		t.Errorf("hosts %q, want %q", got, want)
	}
	if got := resolvConf([]string{"10.0.2.3", "fd00::3"}, []string{"a.example", "b"}, []string{"ndots:2", "rotate"}); got != "nameserver 10.0.2.3\nnameserver fd00::3\nsearch a.example b\noptions ndots:2 rotate\n" {
		t.Errorf("resolv.conf %q", got)
	}
	if got := resolvConf(nil, nil, nil); got != "" {
		t.Errorf("resolv.conf %q", got)
	}
}

// No mount but /dev itself may give the container devices, and nothing of the
// agent's is among what it gets.
func TestMountsAreFenced(t *testing.T) {
	for _, m := range mounts {
		if m.flags&unix.MS_NOSUID == 0 {
			t.Errorf("%s honours set-user-ID", m.target)
		}
		if m.target != "/dev" && m.target != "/dev/pts" && m.flags&unix.MS_NODEV == 0 {
			t.Errorf("%s honours device nodes", m.target)
		}
		switch m.fstype {
		case "configfs", "devtmpfs", "securityfs", "debugfs", "tracefs", "efivarfs":
			t.Errorf("the container gets %s", m.fstype)
		case "sysfs", "cgroup2":
			if m.flags&unix.MS_RDONLY == 0 {
				t.Errorf("%s is writable", m.target)
			}
		}
	}
}
