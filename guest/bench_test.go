package guest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
)

// chunk is what is sent at a time.
const chunk = 1 << 20

// send writes chunks to conn, the other end of which a sink counts.
func send(b *testing.B, conn net.Conn, sunk <-chan int64) {
	b.Helper()
	data := make([]byte, chunk)
	b.SetBytes(chunk)
	for b.Loop() {
		if _, err := conn.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	if c, ok := conn.(*tls.Conn); ok {
		_ = c.CloseWrite()
	}
	if n := <-sunk; n != int64(b.N)*chunk {
		b.Fatalf("%d bytes arrived of %d", n, int64(b.N)*chunk)
	}
}

// sink takes one connection, and says how much came.
func sink(b *testing.B, l net.Listener) <-chan int64 {
	b.Helper()
	b.Cleanup(func() { l.Close() })
	done := make(chan int64, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, conn)
		conn.Close()
		done <- n
	}()
	return done
}

// BenchmarkTunnel is a tunnel to the workload, beside TLS by the standard library to
// the same sink.
func BenchmarkTunnel(b *testing.B) {
	listen := func(b *testing.B) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		return l
	}
	b.Run("ours", func(b *testing.B) {
		l := listen(b)
		n := uint16(l.Addr().(*net.TCPAddr).Port)
		_, address := startChannel(b, pod.Spec{Ports: []pod.Port{{Port: n, Protocol: "tcp"}}}, nil)
		sunk := sink(b, l)
		conn := dial(b, address, nil)
		fmt.Fprintf(conn, "GET %s%d HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", port.TunnelPath, n, port.TunnelProtocol)
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			b.Fatal(resp, err)
		}
		send(b, conn, sunk)
	})
	b.Run("tls", func(b *testing.B) {
		certificate, _, err := newCertificate()
		if err != nil {
			b.Fatal(err)
		}
		l := tls.NewListener(listen(b), &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}})
		sunk := sink(b, l)
		send(b, dial(b, l.Addr().String(), nil), sunk)
	})
}
