package launcher

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func socketPair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns []*net.UnixConn
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn.(*net.UnixConn))
	}
	return conns[0], conns[1]
}

func TestReceiveFile(t *testing.T) {
	ours, theirs := socketPair(t)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("sent"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := theirs.WriteMsgUnix([]byte{0}, unix.UnixRights(int(f.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	got, err := receiveFile(ours, "tap")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if data, err := io.ReadAll(got); err != nil || string(data) != "sent" {
		t.Errorf("%q, %v", data, err)
	}

	if _, err := theirs.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if f, err := receiveFile(ours, "tap"); err == nil || f != nil || !strings.Contains(err.Error(), "sent none") {
		t.Errorf("%v, %v", f, err)
	}
	theirs.Close()
	if f, err := receiveFile(ours, "tap"); err == nil || f != nil {
		t.Errorf("from who has hung up: %v, %v", f, err)
	}
}

func TestFindHelper(t *testing.T) {
	here, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := findHelper([]string{"/nonexistent", here}); err != nil || got != here {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := findHelper([]string{"/nonexistent"}); err == nil || got != "" {
		t.Errorf("%q, %v", got, errors.Unwrap(err))
	}
}
