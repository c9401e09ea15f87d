package guest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/internal/splice"
)

// dialTimeout bounds the wait for the workload to take a connection.
const dialTimeout = 10 * time.Second

// connKey is the context's key for the connection of a request.
type connKey struct{}

// tunnel joins a client's connection with a TCP port of the workload's: one of those
// that the spec names, which are for the network to reach. The workload may listen
// on loopback alone.
type tunnel struct {
	ports []pod.Port
	gate  *gate
}

// ServeHTTP answers GET /v1/tunnel/PORT, and makes the connection the workload's.
func (t *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
	if err != nil || !slices.Contains(t.ports, pod.Port{Port: uint16(n), Protocol: "tcp"}) {
		http.NotFound(w, r)
		return
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), port.TunnelProtocol) || r.ContentLength != 0 {
		w.Header().Set("Upgrade", port.TunnelProtocol)
		http.Error(w, "want an upgrade to "+port.TunnelProtocol, http.StatusUpgradeRequired)
		return
	}
	workload, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(r.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", n))
	if err != nil {
		http.Error(w, "nothing listens there", http.StatusBadGateway)
		return
	}
	defer workload.Close()
	conn, _ := r.Context().Value(connKey{}).(*gated)
	if conn == nil || !conn.move(t.gate.tunnels) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many tunnels at a time", http.StatusServiceUnavailable)
		return
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "no tunnel from here", http.StatusInternalServerError)
		return
	}
	defer client.Close()
	if _, err := fmt.Fprintf(client, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", port.TunnelProtocol); err != nil {
		return
	}
	splice.Join(splice.Buffered(client, buffered.Reader), workload)
}

// withConn puts a request's connection into its context.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if under, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = under.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}
