package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/vsock"
)

// listen opens the agent's port on the network and on vsock. The latter needs
// no device of the host's: without one nothing arrives there.
func listen(ctx context.Context) (net.Listener, error) {
	tcp, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", port.AgentPort))
	if err != nil {
		return nil, err
	}
	vm, err := vsock.Listen(port.AgentPort)
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return newJoined(tcp, vm), nil
}

// joined listens at several places. An error of one ends all.
type joined struct {
	all    []net.Listener
	conns  chan net.Conn
	failed chan error
	done   chan struct{}
	once   sync.Once
}

func newJoined(all ...net.Listener) *joined {
	j := &joined{all: all, conns: make(chan net.Conn), failed: make(chan error, len(all)), done: make(chan struct{})}
	for _, l := range all {
		go j.accept(l)
	}
	return j
}

func (j *joined) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			j.failed <- err
			return
		}
		select {
		case j.conns <- conn:
		case <-j.done:
			conn.Close()
			return
		}
	}
}

// Accept waits for a connection at any of the places.
func (j *joined) Accept() (net.Conn, error) {
	select {
	case conn := <-j.conns:
		return conn, nil
	case err := <-j.failed:
		j.failed <- err // for whoever asks again
		return nil, err
	}
}

// Close ends the listening at all places.
func (j *joined) Close() error {
	var errs []error
	j.once.Do(func() {
		close(j.done)
		for _, l := range j.all {
			errs = append(errs, l.Close())
		}
	})
	return errors.Join(errs...)
}

// Addr is the first place.
func (j *joined) Addr() net.Addr { return j.all[0].Addr() }
