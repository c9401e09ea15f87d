package kattest

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/channel"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/splice"
)

// openClient opens the key by which the launch spec knows a client, and puts it into a
// certificate that says nothing else.
func openClient(ctx context.Context, ref string) (*tls.Certificate, error) {
	key, err := openReleaseSigner(ctx, ref)
	if err != nil {
		return nil, err
	}
	return clientCertificate(key)
}

func clientCertificate(key crypto.Signer) (*tls.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// listenLocal listens on a Unix socket for this user alone. A socket on which nobody
// listens any more is replaced.
func listenLocal(ctx context.Context, name string) (net.Listener, error) {
	if info, err := os.Lstat(name); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there already, and is no socket", name)
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", name)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("%s: another program listens there", name)
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(name); err != nil {
			return nil, err
		}
	}
	old := unix.Umask(0o177) // it is open to others at no time
	defer unix.Umask(old)
	return (&net.ListenConfig{}).Listen(ctx, "unix", name)
}

// leadDocker joins a local connection of docker's client with the API in the guest.
func (t *tunnels) leadDocker(local net.Conn) error {
	remote, err := t.dialDocker()
	if err != nil {
		refuseDocker(local, err)
		return err
	}
	defer remote.Close()
	stop := context.AfterFunc(t.ctx, func() {
		local.Close()
		remote.Close()
	})
	defer stop()
	done := make(chan struct{})
	defer close(done)
	go closeWith(local, remote, done)
	splice.Join(local, remote)
	return nil
}

func (t *tunnels) dialDocker() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, dialTimeout)
	defer cancel()
	conn, err := channel.Dial(ctx, t.addr, t.client)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(conn.Key(), t.key) {
		conn.Close()
		return nil, errOtherKey
	}
	remote, err := conn.Upgrade(ctx, port.DockerPath, port.DockerProtocol)
	if err != nil {
		conn.Close()
		if refusal, ok := errors.AsType[*channel.StatusError](err); ok && refusal.Status == http.StatusNotFound {
			return nil, errors.New("the guest has no docker API for this key: 'cradle-snp summon --client' names keys")
		}
		return nil, err
	}
	return remote, nil
}

// maxRequest bounds what is read of a request that is refused, in bytes.
const maxRequest = 64 << 10

// refuseDocker answers in the guest's place, so that docker's client says why.
func refuseDocker(local net.Conn, reason error) {
	_ = local.SetDeadline(time.Now().Add(dialTimeout))
	// A connection that is closed with a request in it is broken for its client.
	if _, err := http.ReadRequest(bufio.NewReader(io.LimitReader(local, maxRequest))); err != nil {
		return
	}
	body, err := json.Marshal(map[string]string{"message": "kattest: " + reason.Error()})
	if err != nil {
		return
	}
	fmt.Fprintf(local, "HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}

// hangupPoll is how often a local connection is asked whether its other end is there.
const hangupPoll = 200 * time.Millisecond

// closeWith closes the remote connection once the local one's other end is closed, and
// not only says nothing more: reading does not tell these apart, and the guest is to
// end what its client has left.
func closeWith(local, remote net.Conn, done <-chan struct{}) {
	conn, ok := local.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	for {
		select {
		case <-done:
			return
		case <-time.After(hangupPoll):
		}
		closed := false
		err := raw.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd)}}
			n, err := unix.Poll(fds, 0)
			closed = err == nil && n > 0 && fds[0].Revents&unix.POLLHUP != 0
		})
		if closed || err != nil {
			remote.Close()
			return
		}
	}
}

// listenDocker opens the socket, and serves it.
func (t *tunnels) listenDocker(socket string) error {
	l, err := listenLocal(t.ctx, socket)
	if err != nil {
		return cli.Usage(fmt.Errorf("--docker: %w", err), "")
	}
	context.AfterFunc(t.ctx, func() { l.Close() })
	t.running.Go(func() { t.accept(l, "docker", t.leadDocker) })
	return nil
}
