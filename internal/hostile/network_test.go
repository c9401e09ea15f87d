package hostile

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/secrets"
	"github.com/kraudcloud/kattest/internal/channel"
	"github.com/kraudcloud/kattest/internal/splice"
)

// between listens for clients, and hands each connection on with its number, from 0.
func between(t *testing.T, serve func(n int, client net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(n, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// handsOn joins a client's connection with another.
func handsOn(client net.Conn, to string) {
	conn, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer conn.Close()
	splice.Join(client, conn)
}

// certificate is of a key of the host's.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// posing is TLS that ends at the host, which then answers as it likes.
func posing(config *tls.Config, answer func(client net.Conn)) func(int, net.Conn) {
	return func(_ int, client net.Conn) {
		conn := tls.Server(client, config)
		if conn.Handshake() == nil {
			answer(conn)
		}
	}
}

// relaying asks the guest what the client asks, and writes down what that is.
func relaying(agent string, asked *bytes.Buffer, mu *sync.Mutex) func(net.Conn) {
	return func(client net.Conn) {
		guest, err := tls.Dial("tcp", agent, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer guest.Close()
		go func() { _, _ = io.Copy(client, guest) }()
		b := make([]byte, 32<<10)
		for {
			n, err := client.Read(b)
			mu.Lock()
			asked.Write(b[:n])
			mu.Unlock()
			if _, werr := guest.Write(b[:n]); err != nil || werr != nil {
				return
			}
		}
	}
}

// saying answers the first request by those bytes, then by more of the same without
// end if there are any.
func saying(text, more string) func(net.Conn) {
	return func(client net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(client))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		if _, err := io.WriteString(client, text); err != nil {
			return
		}
		for more != "" && err == nil {
			_, err = io.WriteString(client, more)
		}
	}
}

// silent says nothing until the client leaves.
func silent(client net.Conn) { _, _ = io.Copy(io.Discard, client) }

// kept is what the guest answered to another client.
func kept(t *testing.T, agent string) (answer []byte, leaf [][]byte) {
	t.Helper()
	conn, err := channel.Dial(t.Context(), agent, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err = conn.Challenge(t.Context(), make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	guest, err := tls.Dial("tcp", agent, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	return answer, [][]byte{guest.ConnectionState().PeerCertificates[0].Raw}
}

func ok(body []byte) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", evidence.MediaType, len(body), body)
}

// TestNetwork lies to clients of a guest, from between them and it. Beside it runs
// another guest, by another spec, on the same machine.
func TestNetwork(t *testing.T) {
	t.Parallel()
	dir := summon(t, []string{"-p", "8080", "--client", s.ownerPub}, "serve", "127.0.0.1:8080")
	g := start(t, dir, "boot/as it is")
	spec := g.spec
	another := start(t, summon(t, []string{"-p", "8080"}, "serve", "127.0.0.1:8080"), "boot/as it is")

	t.Run("attest", func(t *testing.T) { lieToClients(t, g.agent, another.agent, spec) })
	t.Run("connect", func(t *testing.T) { lieToTunnels(t, g.agent, another.agent, spec) })
	t.Run("agent", func(t *testing.T) { lieToAgent(t, g.agent) })
	run(t, kattest("attest", spec, g.agent)).want(t, 0, "SIMULATED VERIFIED") // it has borne all that
}

func lieToClients(t *testing.T, agent, another, spec string) {
	answer, leaf := kept(t, agent)
	own := certificate(t)
	borrowed := tls.Certificate{Certificate: leaf, PrivateKey: own.PrivateKey}
	old := tls.Config{Certificates: []tls.Certificate{own}, MaxVersion: tls.VersionTLS12}
	pose := func(answer func(net.Conn)) func(int, net.Conn) {
		return posing(&tls.Config{Certificates: []tls.Certificate{own}}, answer)
	}
	say := func(text, more string) func(int, net.Conn) { return pose(saying(text, more)) }
	reused := strings.Repeat("00", 32) // the nonce of the answer that was kept
	var asked bytes.Buffer
	var mu sync.Mutex
	const head = "HTTP/1.1 200 OK\r\n"
	for _, lie := range []struct {
		name  string
		serve func(int, net.Conn)
		exit  int
		want  string
	}{
		{"handed on", func(_ int, c net.Conn) { handsOn(c, agent) }, 0, "SIMULATED VERIFIED"},
		{"another guest", func(_ int, c net.Conn) { handsOn(c, another) }, 5, "another launch spec"},
		{"TLS swapped", pose(relaying(agent, &asked, &mu)), 3, "someone stands between"},
		{"TLS with the guest's certificate", posing(&tls.Config{Certificates: []tls.Certificate{borrowed}}, silent), 4, "invalid signature by the server certificate"},
		{"TLS 1.2", posing(&old, silent), 4, "protocol version"},
		{"no TLS", func(_ int, c net.Conn) { saying(ok(answer), "")(c) }, 4, "asking 127.0.0.1"},
		{"evidence replayed", say(ok(answer), ""), 3, "replayed"},
		{"evidence replayed to who reuses a nonce", say(ok(answer), ""), 3, "someone stands between"},
		{"handed on to who reuses a nonce", func(_ int, c net.Conn) { handsOn(c, agent) }, 0, "SIMULATED VERIFIED"},
		{"evidence cut off", say(ok(answer)[:len(answer)/2], ""), 4, "unexpected EOF"},
		{"evidence of version 1", say(ok(bytes.Replace(answer, []byte("evidence.v2"), []byte("evidence.v1"), 1)), ""), 4, "mediaType"},
		{"evidence with a member twice", say(ok(bytes.Replace(answer, []byte("{"), []byte(`{"nonce":"00",`), 1)), ""), 4, "stands twice"},
		{"evidence without end", say(head+"\r\n", strings.Repeat(" ", 1<<16)), 4, "the answer has more than"},
		{"head without end", say(head, "X: "+strings.Repeat("x", 1000)+"\r\n"), 4, "the head of the answer is too long"},
		{"not HTTP", say("220 ready\r\n\r\n", ""), 4, "malformed HTTP"},
		{"not evidence", say(ok([]byte("[]")), ""), 4, "the answer of"},
		{"led elsewhere", say("HTTP/1.1 307 Temporary Redirect\r\nLocation: https://"+another+"/v1/evidence\r\nContent-Length: 0\r\n\r\n", ""), 4, "status 307"},
		{"silence", pose(silent), 4, "deadline exceeded"},
	} {
		t.Run(lie.name, func(t *testing.T) {
			patience := "30s"
			if lie.name == "silence" {
				patience = "5s"
			}
			args := []string{"--timeout", patience, between(t, lie.serve)}
			if strings.HasSuffix(lie.name, "to who reuses a nonce") {
				args = append(args, "--nonce", reused)
			}
			run(t, kattest("attest", spec, args...)).want(t, lie.exit, lie.want)
		})
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(asked.String(), evidence.ChallengePath) || strings.Contains(asked.String(), secrets.Path) {
		t.Errorf("through the host's own TLS the client asked %q", asked.String())
	}
}

// tunnel runs kattest connect, and returns it with the address on which it listens.
func tunnel(t *testing.T, address, spec string) (cmd *exec.Cmd, local string, warnings *bufio.Reader) {
	t.Helper()
	cmd = kattest("connect", spec, "-L", "0:8080", address)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			local, _, _ = strings.Cut(rest, " ")
			return cmd, local, bufio.NewReader(stderr)
		}
	}
	t.Fatal("it does not listen")
	return nil, "", nil
}

func heard(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	line, _ := bufio.NewReader(conn).ReadString('\n') // a tunnel that is refused ends
	return line
}

// A host that is honest until the verdict leads nobody elsewhere after it.
func lieToTunnels(t *testing.T, agent, another, spec string) {
	own := certificate(t)
	for _, lie := range []struct {
		name string
		to   func(client net.Conn) // after the first connection
		want string
	}{
		{"handed on", func(c net.Conn) { handsOn(c, agent) }, ""},
		{"to another guest", func(c net.Conn) { handsOn(c, another) }, "another key than the one that was judged"},
		{"to TLS of its own", func(c net.Conn) {
			posing(&tls.Config{Certificates: []tls.Certificate{own}}, saying("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: kattest-tunnel\r\n\r\nhello from the host\n", ""))(0, c)
		}, "another key than the one that was judged"},
		{"nowhere", func(net.Conn) {}, "port 8080: "},
	} {
		t.Run(lie.name, func(t *testing.T) {
			address := between(t, func(n int, client net.Conn) {
				if n == 0 {
					handsOn(client, agent)
					return
				}
				lie.to(client)
			})
			cmd, local, warnings := tunnel(t, address, spec)
			got := heard(t, local)
			if lie.want == "" {
				for limit := time.Now().Add(time.Minute); got == "" && time.Now().Before(limit); got = heard(t, local) {
					time.Sleep(100 * time.Millisecond) // the workload begins to listen
				}
				if got != "hello from the guest\n" {
					t.Errorf("the workload said %q", got)
				}
				return
			}
			if got != "" {
				t.Errorf("somebody said %q", got)
			}
			warning, err := warnings.ReadString('\n')
			for err == nil && !strings.Contains(warning, "kattest: warning: ") {
				warning, err = warnings.ReadString('\n')
			}
			if !strings.Contains(warning, lie.want) {
				t.Errorf("warning %q (%v), want %q", warning, err, lie.want)
			}
			// Judged anew, whoever answers is not the guest: the ports are closed.
			if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, warnings)
			if err := cmd.Wait(); err == nil {
				t.Error("judged anew, it goes on")
			}
			if got := heard(t, local); got != "" {
				t.Errorf("after its end somebody said %q", got)
			}
		})
	}
}
