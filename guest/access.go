package guest

import (
	"crypto/sha256"
	"crypto/tls"
	"net"
	"net/http"
	"sync"

	"github.com/kraudcloud/kattest/guest/pod"
)

// clients are those that the launch spec names, by the digest of their TLS key.
type clients map[pod.Hash]pod.Access

func newClients(access []pod.Access) clients {
	c := clients{}
	for _, a := range access {
		c[a.Key] = a
	}
	return c
}

// of returns the entry of who holds the connection's key. TLS has shown that they
// do: the certificate around the key says nothing, and is not looked at. Who has no
// key or an unknown one is a stranger.
func (c clients) of(state *tls.ConnectionState) (pod.Access, bool) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return pod.Access{}, false
	}
	a, ok := c[sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)]
	return a, ok
}

// only is a handler for clients that are named. To all others the path does not
// exist, as any other.
func (c clients) only(h func(http.ResponseWriter, *http.Request, pod.Access)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := c.of(r.TLS)
		if !ok {
			http.NotFound(w, r)
			return
		}
		h(w, r, a)
	})
}

// Connections that are open at a time, by what was shown of who opened them.
const (
	maxStrangers = 32  // what is above waits in the kernel's queue, which is bounded as well
	maxClients   = 64  // by keys that the spec names
	maxTunnels   = 128 // to the workload's ports
)

// class is a bound that connections share.
type class chan struct{}

// enter takes a place, if there is one.
func (c class) enter() bool {
	select {
	case c <- struct{}{}:
		return true
	default:
		return false
	}
}

// gate bounds connections: each begins as a stranger's, and leaves a place to the
// next stranger once it turns out to be something else.
type gate struct {
	net.Listener
	strangers, clients, tunnels class
}

func newGate(l net.Listener) *gate {
	return &gate{l, make(class, maxStrangers), make(class, maxClients), make(class, maxTunnels)}
}

// Accept waits for a connection, and before that for a stranger's place.
func (g *gate) Accept() (net.Conn, error) {
	g.strangers <- struct{}{}
	conn, err := g.Listener.Accept()
	if err != nil {
		<-g.strangers
		return nil, err
	}
	return &gated{Conn: conn, place: g.strangers}, nil
}

// gated is a connection with its place.
type gated struct {
	net.Conn
	mu    sync.Mutex
	place class // nil once it is closed
}

// move changes the connection's class. It stays what it was where there is no place.
func (c *gated) move(to class) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.place == nil || !to.enter() {
		return false
	}
	<-c.place
	c.place = to
	return true
}

// Close closes the connection and leaves its place.
func (c *gated) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.place != nil {
		<-c.place
		c.place = nil
	}
	return err
}

// tlsConfig moves those whose key is named out of the strangers' places.
func (g *gate) tlsConfig(certificate tls.Certificate, known clients) *tls.Config {
	config := &tls.Config{
		Certificates:           []tls.Certificate{certificate},
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		ClientAuth:             tls.RequestClientCert,
	}
	if len(known) == 0 {
		config.ClientAuth = tls.NoClientCert
		return config
	}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		own := config.Clone()
		own.GetConfigForClient = nil
		own.VerifyConnection = func(state tls.ConnectionState) error {
			if _, ok := known.of(&state); ok {
				if conn, ok := hello.Conn.(*gated); ok {
					conn.move(g.clients) // where those are full, a stranger's place will do
				}
			}
			return nil
		}
		return own, nil
	}
	return config
}
