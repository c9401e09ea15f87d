package guest

import (
	"archive/tar"
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/container"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

// inNamespace is the environment of a test in a mount namespace of its own.
const inNamespace = "KATTEST_GUEST_TEST"

// testContainers runs the tests in a mount namespace of their own, if that can be
// had: containers detach what is mounted.
func testContainers(m *testing.M) int {
	if os.Getuid() != 0 || os.Getenv(inNamespace) != "" {
		return m.Run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "without a mount namespace of its own:", err)
		return m.Run()
	}
	return cmd.ProcessState.ExitCode()
}

// startDocker runs a container on tmpfs, and serves docker's API for it to one client.
func startDocker(t testing.TB) (client *tls.Certificate, address string) {
	t.Helper()
	if os.Getenv(inNamespace) == "" {
		t.Skip("a container takes root and a mount namespace")
	}
	if testing.Short() {
		t.Skip("the race detector needs the C library, and a container has none")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root, cgroups := t.TempDir(), t.TempDir()
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for dir, kind := range map[string]string{root: "tmpfs", cgroups: "cgroup2"} {
		must(unix.Mount(kind, dir, kind, 0, ""))
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	if text, err := os.ReadFile("/proc/self/mounts"); err == nil && !says(fmt.Errorf("%s", text), " /run ") {
		must(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	}
	self, err := os.ReadFile("/proc/self/exe")
	must(err)
	must(os.WriteFile(filepath.Join(root, "sleep"), self, 0o755))
	must(os.Mkdir(filepath.Join(root, "data"), 0o755))
	cgroup := filepath.Join(cgroups, fmt.Sprintf("kattest-guest-%d", os.Getpid()))
	must(os.Mkdir(cgroup, 0o755))
	t.Cleanup(func() {
		for range 50 { // it is empty a moment after its last process was reaped
			if unix.Rmdir(cgroup) == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("processes are left in %s", cgroup)
	})

	key, id := clientKey(t)
	a := newAgent(quiet())
	a.spec = testSpec()
	a.spec.Process.Args, a.spec.Process.Capabilities = []string{"/sleep"}, pod.DefaultCapabilities
	a.spec.Access = []pod.Access{{Key: id, Allow: pod.Operations}}
	for i, name := range pod.RlimitNames { // none is raised: root may be kept from it
		var limit unix.Rlimit
		must(unix.Getrlimit(i, &limit))
		a.spec.Process.Rlimits = append(a.spec.Process.Rlimits, pod.Rlimit{Name: name, Soft: int64(limit.Cur), Hard: int64(limit.Max)})
	}
	_, address = startChannel(t, a.spec, a.serveDocker)
	must(a.output.open(t.Context(), pod.ConsoleNone))
	a.task.prepare(container.NewConfig(a.spec, root), cgroup)
	must(a.task.start(&a.output))
	t.Cleanup(func() {
		_ = a.task.signal(unix.SIGKILL)
		_, _ = a.task.wait()
		a.ended(137)
		a.endDocker()
	})
	return key, address
}

// dockerConn is a connection to docker's API.
func dockerConn(t testing.TB, key *tls.Certificate, address string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn := dial(t, address, key)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", port.DockerPath, port.DockerProtocol)
	r := bufio.NewReaderSize(conn, 256<<10)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return conn, r
}

// Docker's API is there for a client that is named, and for nobody else; and only
// after an upgrade.
func TestDockerPath(t *testing.T) {
	key, address := startDocker(t)
	stranger, _ := clientKey(t)
	nowhere := ask(t, address, key, "/nowhere")
	for name, other := range map[string]*tls.Certificate{"no key": nil, "another key": stranger} {
		if got := ask(t, address, other, port.DockerPath); got != nowhere {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := ask(t, address, key, port.DockerPath); !says(fmt.Errorf("%s", got), "HTTP/1.1 426") {
		t.Errorf("without an upgrade: %s", got)
	}
	conn, r := dockerConn(t, key, address)
	fmt.Fprint(conn, "GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.Header.Get("Api-Version") != "1.50" {
		t.Errorf("%v, %v", resp, err)
	}
}

// copySize is what one copy moves, in bytes.
const copySize = 64 << 20

// BenchmarkCopy is docker's "cp" in and out, beside TLS by the standard library to a
// sink: see BenchmarkTunnel.
func BenchmarkCopy(b *testing.B) {
	key, address := startDocker(b)
	conn, r := dockerConn(b, key, address)
	zeros := make([]byte, chunk)
	b.Run("in", func(b *testing.B) {
		b.SetBytes(copySize)
		for b.Loop() {
			request, err := http.NewRequest(http.MethodPut, "http://a/containers/guest/archive?path=/data", newTar(copySize, zeros))
			if err != nil {
				b.Fatal(err)
			}
			if err := request.Write(conn); err != nil {
				b.Fatal(err)
			}
			finishCopy(b, r, request, 0)
		}
	})
	b.Run("out", func(b *testing.B) {
		b.SetBytes(copySize)
		for b.Loop() {
			request, err := http.NewRequest(http.MethodGet, "http://a/containers/guest/archive?path=/data/file", nil)
			if err != nil {
				b.Fatal(err)
			}
			if err := request.Write(conn); err != nil {
				b.Fatal(err)
			}
			finishCopy(b, r, request, copySize)
		}
	})
}

func finishCopy(b *testing.B, r *bufio.Reader, request *http.Request, least int64) {
	b.Helper()
	resp, err := http.ReadResponse(r, request)
	if err != nil {
		b.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n < least || resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status, n, err)
	}
}

// newTar is an archive of one file of zeros.
func newTar(size int64, zeros []byte) io.Reader {
	r, w := io.Pipe()
	go func() {
		archive := tar.NewWriter(w)
		err := archive.WriteHeader(&tar.Header{Name: "file", Mode: 0o600, Size: size})
		for ; size > 0 && err == nil; size -= int64(len(zeros)) {
			_, err = archive.Write(zeros)
		}
		if err == nil {
			err = archive.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}
