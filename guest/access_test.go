package guest

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

// clientKey is a client's certificate, and by what the spec knows it.
func clientKey(t testing.TB) (*tls.Certificate, pod.Hash) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)} // of no dates, which nobody asks for
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, sha256.Sum256(spki)
}

// startChannel serves what the spec asks for.
func startChannel(t testing.TB, spec pod.Spec, add func(*channel)) (c *channel, address string) {
	t.Helper()
	certificate, _, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c = newChannel(listener, certificate, spec)
	if add != nil {
		add(c)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = c.serve() }()
	t.Cleanup(func() { c.server.Close(); <-done })
	return c, listener.Addr().String()
}

func dial(t testing.TB, address string, key *tls.Certificate) *tls.Conn {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if key != nil {
		config.Certificates = []tls.Certificate{*key}
	}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a request on a connection of its own, and returns what comes but for the
// date.
func ask(t testing.TB, address string, key *tls.Certificate, path string) string {
	t.Helper()
	conn := dial(t, address, key)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path)
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(answer)) {
		if !strings.HasPrefix(line, "Date:") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// A client that is named is known by its key, and gets what is for it. To one without
// a key, or with another, the path is like any that does not exist.
func TestClientsAreKnownByTheirKeys(t *testing.T) {
	named, id := clientKey(t)
	stranger, _ := clientKey(t)
	spec := pod.Spec{Access: []pod.Access{{Key: id, Allow: []pod.Operation{pod.OpDockerPS}}}}
	_, address := startChannel(t, spec, func(c *channel) {
		c.mux.Handle("GET /private", c.known.only(func(w http.ResponseWriter, _ *http.Request, a pod.Access) {
			fmt.Fprint(w, a.Key, a.Allows(pod.OpDockerPS), a.Allows(pod.OpDockerExec))
		}))
	})
	if got := ask(t, address, named, "/private"); !strings.HasSuffix(got, fmt.Sprint(id, true, false)) {
		t.Error(got)
	}
	nothing := ask(t, address, nil, "/nowhere")
	if !strings.HasPrefix(nothing, "HTTP/1.1 404") {
		t.Error(nothing)
	}
	for name, key := range map[string]*tls.Certificate{"no key": nil, "another key": stranger} {
		if got := ask(t, address, key, "/private"); got != nothing {
			t.Errorf("%s: %q, want %q", name, got, nothing)
		}
	}
	// Who shows another's certificate without its key does not get in at all.
	forged := &tls.Certificate{Certificate: named.Certificate, PrivateKey: stranger.PrivateKey}
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*forged}})
	if err == nil {
		fmt.Fprintf(conn, "GET /private HTTP/1.1\r\nHost: a\r\n\r\n")
		_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells it late
		conn.Close()
	}
	if err == nil {
		t.Error("a certificate without its key is taken")
	}
}

// Strangers that take all their places leave those of named clients and of tunnels
// free; and the other way round.
func TestPlacesAreApart(t *testing.T) {
	named, id := clientKey(t)
	c, address := startChannel(t, pod.Spec{Access: []pod.Access{{Key: id, Allow: []pod.Operation{pod.OpDockerPS}}}}, nil)
	var strangers []*tls.Conn
	for range maxStrangers - 1 {
		strangers = append(strangers, dial(t, address, nil))
	}
	stay := func(key *tls.Certificate) {
		t.Helper()
		conn := dial(t, address, key)
		fmt.Fprint(conn, "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range maxClients {
		stay(named) // each passes through the one place that is left
		if got := len(c.gate.clients); got != n+1 {
			t.Fatalf("%d clients, want %d", got, n+1)
		}
	}
	if got := ask(t, address, named, "/nowhere"); !strings.HasPrefix(got, "HTTP/1.1 404") { // by a stranger's place
		t.Error(got)
	}
	for _, conn := range strangers {
		conn.Close()
	}
	wait(t, func() bool { return len(c.gate.strangers) == 0 && len(c.gate.clients) == maxClients })
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if n := len(c.gate.queue); n != 0 {
		t.Errorf("%d strangers are thought to be there", n)
	}
}

// Strangers that say nothing, many more than there are places, do not keep out a
// client that comes after them: those that came first make room. They stay where
// nobody wants their place.
func TestSilentStrangersMakeRoom(t *testing.T) {
	named, id := clientKey(t)
	c, address := startChannel(t, pod.Spec{Access: []pod.Access{{Key: id, Allow: []pod.Operation{pod.OpDockerPS}}}}, nil)
	silent := func(n int) (all []net.Conn) {
		for range n {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			all = append(all, conn)
		}
		return all
	}
	first := silent(maxStrangers)
	wait(t, func() bool { return len(c.gate.strangers) == maxStrangers })
	time.Sleep(c.gate.time + c.gate.time/4)
	if n := len(c.gate.strangers); n != maxStrangers {
		t.Errorf("%d strangers, want all %d", n, maxStrangers)
	}
	silent(2 * maxStrangers)
	began := time.Now()
	if got := ask(t, address, named, "/nowhere"); !strings.HasPrefix(got, "HTTP/1.1 404") {
		t.Error(got)
	}
	if took := time.Since(began); took > requestTimeout/2 {
		t.Errorf("the client waited %v", took)
	}
	for _, conn := range first {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a stranger that said nothing was answered")
		}
	}
}

// half sends no more than the first encrypted record, which is the certificate: what
// shows that its key is held comes after it.
// Source: RFC 8446, sections 4.4 and 5.1.
type half struct {
	net.Conn
	sent bool
}

func (h *half) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		size := 5 + int(binary.BigEndian.Uint16(rest[3:]))
		if encrypted := rest[0] == 23; !encrypted || !h.sent {
			if _, err := h.Conn.Write(rest[:size]); err != nil {
				return 0, err
			}
			h.sent = encrypted
		}
		rest = rest[size:]
	}
	return len(p), nil
}

// Who shows the certificate of a client that is named, and not that it has the key,
// stays a stranger.
func TestACertificateTakesNoClientsPlace(t *testing.T) {
	named, id := clientKey(t)
	c, address := startChannel(t, pod.Spec{Access: []pod.Access{{Key: id, Allow: []pod.Operation{pod.OpDockerPS}}}}, nil)
	for _, withheld := range []bool{true, false} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if withheld {
			conn = &half{Conn: conn}
		}
		over := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*named}})
		fmt.Fprint(over, "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
		if !withheld {
			wait(t, func() bool { return len(c.gate.strangers) == 1 && len(c.gate.clients) == 1 })
			continue
		}
		time.Sleep(100 * time.Millisecond)
		if s, k := len(c.gate.strangers), len(c.gate.clients); s != 1 || k != 0 {
			t.Errorf("%d strangers and %d clients, want 1 and 0", s, k)
		}
	}
}

func wait(t testing.TB, until func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !until(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to pass")
		}
	}
}

// workload listens on loopback alone, and sends back what it gets until the other
// end says that nothing more comes.
func workload(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
				fmt.Fprint(conn, "bye")
			}()
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func open(t testing.TB, address string, path, protocol string) (*tls.Conn, *bufio.Reader, string) {
	t.Helper()
	conn := dial(t, address, nil)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", path, protocol)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, r, resp.Status
}

func TestTunnel(t *testing.T) {
	n := workload(t)
	c, address := startChannel(t, pod.Spec{Ports: []pod.Port{{Port: n, Protocol: "tcp"}, {Port: 1, Protocol: "tcp"}, {Port: n, Protocol: "udp"}}}, nil)
	conn, r, status := open(t, address, fmt.Sprint(port.TunnelPath, n), port.TunnelProtocol)
	if status != "101 Switching Protocols" || len(c.gate.tunnels) != 1 {
		t.Fatal(status)
	}
	big := strings.Repeat("0123456789abcdef", 1<<16)
	go func() {
		_, _ = io.WriteString(conn, big)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != big+"bye" {
		t.Errorf("%d bytes of %d, %v", len(got), len(big)+3, err)
	}
	conn.Close()
	wait(t, func() bool { return len(c.gate.tunnels) == 0 })

	for _, tt := range []struct{ path, protocol, want string }{
		{fmt.Sprint(port.TunnelPath, n), "websocket", "426"},
		{fmt.Sprint(port.TunnelPath, 1), port.TunnelProtocol, "502"}, // nobody listens
		{port.TunnelPath + "22", port.TunnelProtocol, "404"},
		{port.TunnelPath + "0", port.TunnelProtocol, "404"},
		{port.TunnelPath + "65537", port.TunnelProtocol, "404"},
		{fmt.Sprint(port.TunnelPath, "+", n), port.TunnelProtocol, "404"},
		{fmt.Sprint(port.TunnelPath, 1<<32+int(n)), port.TunnelProtocol, "404"},
		{port.TunnelPath, port.TunnelProtocol, "404"},
	} {
		if _, _, status := open(t, address, tt.path, tt.protocol); !strings.HasPrefix(status, tt.want) {
			t.Errorf("%s: %s, want %s", tt.path, status, tt.want)
		}
	}
	for range maxTunnels {
		if _, _, status := open(t, address, fmt.Sprint(port.TunnelPath, n), port.TunnelProtocol); !strings.HasPrefix(status, "101") {
			t.Fatal(status)
		}
	}
	if _, _, status := open(t, address, fmt.Sprint(port.TunnelPath, n), port.TunnelProtocol); !strings.HasPrefix(status, "503") {
		t.Errorf("one too many: %s", status)
	}
}
