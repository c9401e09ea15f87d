package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// locked returns the locked packages, from the cache that the recipe uses.
func locked(t *testing.T) []string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Parse(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	f := &fetch.Fetcher{Cache: filepath.Join(cache, "kattest")}
	debs, err := f.GetAll(t.Context(), l.Set(recipe.Name))
	if err != nil {
		t.Fatal(err)
	}
	return debs
}

// container is the unpacked image, run by bubblewrap with the capabilities that
// the entrypoint needs and no others.
type container struct {
	root string
	cmd  []string
}

// newContainer goes the whole way: recipe, layout on disk, unpacked.
func newContainer(t *testing.T) *container {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the entrypoint changes owners and users")
	}
	if _, err := exec.LookPath("bwrap"); err != nil {
		t.Skip("needs bwrap of the package bubblewrap, to run the image without docker")
	}
	locked(t) // so that the recipe below finds them in the cache
	out := filepath.Join(t.TempDir(), "image")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	f := &fetch.Fetcher{Cache: filepath.Join(cache, "kattest"), Offline: true}
	if _, err := recipe.Make(t.Context(), f, out, &log); err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(out)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	tar := exec.Command("tar", "--extract", "--preserve-permissions", "--numeric-owner", "--directory", root)
	r := mutate.Extract(img)
	defer r.Close()
	tar.Stdin = r
	if msg, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("unpacking the image: %v: %s", err, msg)
	}
	env := []string{"--clearenv"}
	for _, e := range config.Config.Env {
		name, value, _ := strings.Cut(e, "=")
		env = append(env, "--setenv", name, value)
	}
	cmd := []string{
		"--bind", root, "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run",
		"--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session",
	}
	for _, capability := range []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"} {
		cmd = append(cmd, "--cap-add", "CAP_"+capability)
	}
	return &container{root, append(cmd, env...)}
}

// command returns the entrypoint with these variables and arguments.
func (c *container) command(ctx context.Context, env map[string]string, args ...string) *exec.Cmd {
	line := append([]string{}, c.cmd...)
	for name, value := range env {
		line = append(line, "--setenv", name, value)
	}
	line = append(line, "--", "docker-entrypoint.sh")
	return exec.CommandContext(ctx, "bwrap", append(line, args...)...)
}

// server is a database that runs in a container.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string
	log  *buffer
	done chan error
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (c *container) start(t *testing.T, env map[string]string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	s := &server{t: t, addr: "127.0.0.1:" + port, log: &buffer{}, done: make(chan error, 1)}
	s.cmd = c.command(context.Background(), env, "--port="+port, "--bind-address=127.0.0.1")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(s.stop)
	return s
}

// stop asks the server to end, as a host that stops the container does.
func (s *server) stop() {
	if s.cmd.ProcessState != nil {
		return
	}
	// bwrap's child is the container's first process, whose child is the server.
	for _, first := range children(s.t, s.cmd.Process.Pid) {
		for _, pid := range children(s.t, first) {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				s.t.Errorf("stopping the server: %v", err)
			}
		}
	}
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		s.t.Error("the server did not stop")
		_ = s.cmd.Process.Signal(syscall.SIGKILL)
		<-s.done
	}
}

// children returns the processes whose parent is pid.
func children(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): pid (comm) state ppid; comm may hold anything.
		var state string
		var parent int
		rest := data[bytes.LastIndexByte(data, ')')+1:]
		if _, err := fmt.Sscan(string(rest), &state, &parent); err != nil || parent != pid {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, child)
	}
	return found
}

// ask runs one statement the way the query command does.
func (s *server) ask(user, password, database, statement string) (string, error) {
	s.t.Helper()
	config := mysql.NewConfig()
	config.Net, config.Addr, config.User, config.Passwd, config.DBName = "tcp", s.addr, user, password, database
	config.Logger = &mysql.NopLogger{}
	var out strings.Builder
	err := query(s.t.Context(), &out, config, statement, time.Minute)
	if err != nil && !isRefusal(err) {
		s.t.Fatalf("%v\n%s", err, s.log)
	}
	return strings.TrimSuffix(out.String(), "\n"), err
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*mysql.MySQLError](err)
	return ok
}

func (s *server) want(user, password, database, statement, want string) {
	s.t.Helper()
	got, err := s.ask(user, password, database, statement)
	if err != nil || got != want {
		s.t.Errorf("%s asks %s: got %q, %v, want %q\n%s", user, statement, got, err, want, s.log)
	}
}

func (s *server) refused(user, password, database, statement string, number uint16) {
	s.t.Helper()
	got, err := s.ask(user, password, database, statement)
	if e, ok := errors.AsType[*mysql.MySQLError](err); !ok || e.Number != number {
		s.t.Errorf("%s asks %s: got %q, %v, want error %d", user, statement, got, err, number)
	}
}

// Errors of the server.
const (
	accessDeniedToDatabase = 1044
	accessDenied           = 1045
)

// nasty tries whatever an SQL string could be broken out of with.
const nasty = `a'b"c\d;--` + "\n" + `e%_` + "`" + `$(x)ü`

func TestEntrypoint(t *testing.T) {
	c := newContainer(t)
	env := map[string]string{
		"MARIADB_ROOT_PASSWORD": nasty,
		"MARIADB_DATABASE":      "my_d`b",
		"MARIADB_USER":          "o'neill",
		"MYSQL_PASSWORD":        `\'`,
	}
	s := c.start(t, env)
	l, err := lock.Parse(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	var locked string
	for _, in := range l.Inputs {
		if in.Name == "mariadb-server-core" {
			locked = in.Version
		}
	}
	version, err := s.ask("root", nasty, "", "SELECT VERSION()")
	if err != nil || !strings.HasPrefix(version, "10.") || !strings.Contains(locked, strings.TrimSuffix(version[:strings.IndexByte(version, '-')], "-")) {
		t.Errorf("SELECT VERSION(): %q, %v; the lock file says %s", version, err, locked)
	}
	s.refused("root", "wrong", "", "SELECT 1", accessDenied)
	s.refused("root", "", "", "SELECT 1", accessDenied)
	s.refused("", "", "", "SELECT 1", accessDenied)
	s.want("root", nasty, "", "SELECT COUNT(*) FROM mysql.global_priv WHERE User = ''", "0")
	s.want("root", nasty, "", "SELECT COUNT(*) FROM mysql.proxies_priv WHERE Host <> 'localhost'", "0")
	s.want("o'neill", `\'`, "my_d`b", "SELECT DATABASE()", "my_d`b")
	s.refused("o'neill", `\'`, "mysql", "SELECT 1", accessDeniedToDatabase)
	// The _ of the name is no wildcard in the grant.
	s.refused("o'neill", `\'`, "", "CREATE DATABASE `myXd``b`", accessDeniedToDatabase)
	s.want("o'neill", `\'`, "my_d`b", "CREATE TABLE t (x INT)", "")
	s.want("o'neill", `\'`, "my_d`b", "INSERT INTO t VALUES (42)", "")
	if strings.Contains(s.log.String(), "c\\d") {
		t.Errorf("the password is in the log:\n%s", s.log)
	}
	s.stop()

	t.Run("restart", func(t *testing.T) {
		s := c.start(t, nil)
		s.want("o'neill", `\'`, "my_d`b", "SELECT x FROM t", "42")
		s.want("root", nasty, "", "SELECT 1", "1")
		if strings.Contains(s.log.String(), "initialising") {
			t.Errorf("initialised again:\n%s", s.log)
		}
	})
	t.Run("packaged client", func(t *testing.T) {
		s := c.start(t, nil)
		s.want("root", nasty, "", "SELECT 1", "1")
		host, port, _ := net.SplitHostPort(s.addr)
		out, err := c.command(t.Context(), map[string]string{"MYSQL_PWD": nasty},
			"mariadb", "--host="+host, "--port="+port, "--user=root", "--skip-column-names", "--execute=SELECT VERSION()").Output()
		if err != nil || strings.TrimSpace(string(out)) != version {
			t.Errorf("got %q, %v, want %q", out, err, version)
		}
	})
}

func TestScripts(t *testing.T) {
	c := newContainer(t)
	dir := filepath.Join(c.root, "docker-entrypoint-initdb.d")
	for name, text := range map[string]string{
		"1-table.sql": "CREATE TABLE t (x INT);\nDELIMITER //\nCREATE PROCEDURE fill() BEGIN\nINSERT INTO t VALUES (1);\nINSERT INTO t VALUES (2);\nEND//\nDELIMITER ;\nCALL fill();\n",
		"2-more.sh":   "printf 'INSERT INTO t VALUES (4);' | mariadb --user=root shop\n",
		"README":      "ignored",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(c.root, "secret")
	if err := os.WriteFile(secret, []byte("pa ss\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	s := c.start(t, map[string]string{"MARIADB_ROOT_PASSWORD_FILE": "/secret", "MARIADB_DATABASE": "shop", "MARIADB_ROOT_HOST": "127.0.0.1"})
	s.want("root", "pa ss", "shop", "SELECT SUM(x) FROM t", "7")
	s.want("root", "pa ss", "", "SELECT GROUP_CONCAT(Host ORDER BY Host) FROM mysql.global_priv WHERE User = 'root'", "127.0.0.1,localhost")
}

func TestPasswordChoices(t *testing.T) {
	c := newContainer(t)
	data := filepath.Join(c.root, "var/lib/mysql")
	empty := func(t *testing.T) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(data), os.Mkdir(data, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("empty", func(t *testing.T) {
		empty(t)
		s := c.start(t, map[string]string{"MARIADB_ALLOW_EMPTY_ROOT_PASSWORD": "1"})
		s.want("root", "", "", "SELECT 1", "1")
	})
	t.Run("random", func(t *testing.T) {
		empty(t)
		s := c.start(t, map[string]string{"MYSQL_RANDOM_ROOT_PASSWORD": "yes"})
		s.refused("root", "", "", "SELECT 1", accessDenied)
		_, password, _ := strings.Cut(s.log.String(), "GENERATED ROOT PASSWORD: ")
		password, _, _ = strings.Cut(password, "\n")
		s.want("root", password, "", "SELECT 1", "1")
	})
}

func TestRefusals(t *testing.T) {
	c := newContainer(t)
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"no password", nil, "nothing says which password root gets"},
		{"two", map[string]string{"MARIADB_ROOT_PASSWORD": "a", "MYSQL_ROOT_PASSWORD": "b"}, "MARIADB_ROOT_PASSWORD and MYSQL_ROOT_PASSWORD are both set"},
		{"value and file", map[string]string{"MARIADB_ROOT_PASSWORD": "a", "MARIADB_ROOT_PASSWORD_FILE": "/etc/passwd"}, "MARIADB_ROOT_PASSWORD and MARIADB_ROOT_PASSWORD_FILE are both set"},
		{"no such file", map[string]string{"MARIADB_ROOT_PASSWORD_FILE": "/nowhere"}, "/nowhere cannot be read"},
		{"user is root", map[string]string{"MARIADB_ROOT_PASSWORD": "a", "MARIADB_USER": "root", "MARIADB_PASSWORD": "b"}, "root is there anyway"},
		{"user without password", map[string]string{"MARIADB_ROOT_PASSWORD": "a", "MARIADB_USER": "u"}, "MARIADB_PASSWORD is not"},
		{"password without user", map[string]string{"MARIADB_ROOT_PASSWORD": "a", "MARIADB_PASSWORD": "p"}, "MARIADB_USER is not"},
		{"line feed in a name", map[string]string{"MARIADB_ROOT_PASSWORD": "a", "MARIADB_DATABASE": "x\ny"}, "MARIADB_DATABASE holds a line feed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := c.command(t.Context(), tt.env).CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), "entrypoint: error: ") || !strings.Contains(string(out), tt.want) {
				t.Errorf("got %v:\n%s\nwant exit status 1 and %q", err, out, tt.want)
			}
		})
	}
	t.Run("cut short", func(t *testing.T) {
		mark := filepath.Join(c.root, "var/lib/mysql/.initialising")
		if err := os.WriteFile(mark, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := c.command(t.Context(), map[string]string{"MARIADB_ROOT_PASSWORD": "a"}).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "was cut short") {
			t.Errorf("got %v:\n%s", err, out)
		}
	})
	t.Run("another command", func(t *testing.T) {
		out, err := c.command(t.Context(), nil, "echo", "hello").CombinedOutput()
		if err != nil || string(out) != "hello\n" {
			t.Errorf("got %q, %v", out, err)
		}
	})
}
