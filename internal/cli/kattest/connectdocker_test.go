package kattest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The socket is this user's alone; one that another program listens on is left to it,
// and one that nobody does is replaced.
func TestListenLocal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "docker.sock")
	l, err := listenLocal(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if other, err := listenLocal(t.Context(), name); other != nil || err == nil || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("%v, %v", other, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	again, err := listenLocal(t.Context(), name)
	if err != nil {
		t.Fatalf("a socket that is left: %v", err)
	}
	again.Close()
}

// Docker's client is told why there is nothing for it, whatever its request.
func TestRefuseDocker(t *testing.T) {
	name := filepath.Join(t.TempDir(), "docker.sock")
	l, err := listenLocal(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			refuseDocker(conn, errors.New(`no "reason"`))
			conn.Close()
		}
	}()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", name)
	}}}
	for _, body := range []string{"", strings.Repeat("x", 1<<10)} {
		resp, err := client.Post("http://docker/v1.50/containers/x/exec", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusBadGateway || string(text) != `{"message":"kattest: no \"reason\""}` {
			t.Errorf("%d %s, %v", resp.StatusCode, text, err)
		}
	}
}

// A local end that is closed closes the remote one; one that has only said that
// nothing more comes does not.
func TestCloseWith(t *testing.T) {
	for _, whole := range []bool{true, false} {
		name := filepath.Join(t.TempDir(), "docker.sock")
		l, err := listenLocal(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		far, err := net.Dial("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		local, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		remote, agent := net.Pipe()
		done := make(chan struct{})
		go closeWith(local, remote, done)
		if whole {
			far.Close()
		} else if err := far.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_ = agent.SetReadDeadline(time.Now().Add(5 * hangupPoll))
		_, err = agent.Read(make([]byte, 1))
		if closed := errors.Is(err, io.EOF); closed != whole {
			t.Errorf("closed whole %v: the agent reads %v", whole, err)
		}
		close(done)
		for _, c := range []io.Closer{far, local, remote, agent, l} {
			c.Close()
		}
	}
}
