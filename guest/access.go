package guest

import (
	"crypto/sha256"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

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
	maxStrangers = 64
	maxClients   = 64  // by keys that the spec names
	maxTunnels   = 128 // to the workload's ports
)

// strangerTime is how long a stranger has its place where others wait for one.
const strangerTime = 2 * time.Second

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
// next stranger once it turns out to be something else. Where strangers have all
// places, the one that came first makes room for who waits.
type gate struct {
	net.Listener
	strangers, clients, tunnels class
	time                        time.Duration

	mu    sync.Mutex
	queue []*gated // strangers, in the order of their arrival; those shut out are not in it
}

func newGate(l net.Listener) *gate {
	return &gate{
		Listener: l, time: strangerTime,
		strangers: make(class, maxStrangers), clients: make(class, maxClients), tunnels: make(class, maxTunnels),
	}
}

// Accept waits for a connection, and for a stranger's place.
func (g *gate) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g.takePlace()
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &gated{Conn: conn, gate: g, place: g.strangers, since: time.Now()}
	g.queue = append(g.queue, c)
	return c, nil
}

// takePlace waits for a stranger's place, and makes others leave one.
func (g *gate) takePlace() {
	for !g.strangers.enter() {
		select {
		case g.strangers <- struct{}{}:
			return
		case <-time.After(g.shutOut()):
		}
	}
}

// shutOut closes the connection that came first, if it has had its time, and returns
// when to come again. Its place is free once its server has noticed.
func (g *gate) shutOut() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) == 0 {
		return g.time
	}
	if left := g.time - time.Since(g.queue[0].since); left > 0 {
		return left
	}
	_ = g.queue[0].Conn.Close() // its other end may have left
	g.queue = g.queue[1:]
	return g.time
}

// gated is a connection with its place.
type gated struct {
	net.Conn
	gate  *gate
	since time.Time
	place class // nil once it is closed; the gate's mutex guards it
}

// move changes the connection's class. It stays what it was where there is no place.
func (c *gated) move(to class) bool {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.place == nil || c.place != to && !to.enter() {
		return false
	}
	if c.place != to {
		c.leave()
		c.place = to
	}
	return true
}

// is says whether the connection is of that class.
func (c *gated) is(class class) bool {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	return c.place == class
}

// Close closes the connection and leaves its place.
func (c *gated) Close() error {
	err := c.Conn.Close()
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.place != nil {
		c.leave()
		c.place = nil
	}
	return err
}

func (c *gated) leave() {
	<-c.place
	c.gate.queue = slices.DeleteFunc(c.gate.queue, func(other *gated) bool { return other == c })
}

// know is a server's hook that moves those whose key is named out of the strangers'
// places. It does so at their first request: before the handshake's end, a key has
// been shown but not that the client holds it. Where those places are full, a
// stranger's will do.
func (g *gate) know(known clients) func(net.Conn, http.ConnState) {
	return func(conn net.Conn, state http.ConnState) {
		over, ok := conn.(*tls.Conn)
		if !ok || state != http.StateActive {
			return
		}
		shown := over.ConnectionState()
		if _, ok := known.of(&shown); !ok {
			return
		}
		if c, ok := over.NetConn().(*gated); ok {
			c.move(g.clients)
		}
	}
}

// tlsConfig asks for a client's certificate where any key is named.
func tlsConfig(certificate tls.Certificate, known clients) *tls.Config {
	config := &tls.Config{
		Certificates:           []tls.Certificate{certificate},
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		ClientAuth:             tls.RequestClientCert,
	}
	if len(known) == 0 {
		config.ClientAuth = tls.NoClientCert
	}
	return config
}
