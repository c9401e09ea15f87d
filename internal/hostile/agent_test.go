package hostile

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/port"
)

// signer reads a key that openssl made.
func signer(t *testing.T, file string) crypto.Signer {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s: not PEM", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

// client is a client's certificate for that key.
func client(t *testing.T, key crypto.Signer) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// exchange sends bytes over TLS and returns what comes back, but for the date.
func exchange(t *testing.T, agent string, key *tls.Certificate, request string) string {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if key != nil {
		config.Certificates = []tls.Certificate{*key}
	}
	conn, err := tls.Dial("tcp", agent, config)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(conn, request) }()
	answer, err := io.ReadAll(conn)
	if len(answer) == 0 {
		return fmt.Sprintf("closed: %v", err)
	}
	var lines []string
	for line := range strings.Lines(string(answer)) {
		if !strings.HasPrefix(line, "Date:") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func get(path string, headers ...string) string {
	return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%s\r\n", path, strings.Join(headers, ""))
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func challenge(nonce string) string {
	return fmt.Sprintf(`{"mediaType":%q,"nonce":%q}`, evidence.ChallengeMediaType, nonce)
}

// lieToAgent asks the agent for what it must not give, or in ways that it must not
// take.
func lieToAgent(t *testing.T, agent string) {
	nonce := strings.Repeat("ab", 32)
	upgrade := "Connection: Upgrade\r\nUpgrade: " + port.TunnelProtocol + "\r\n"
	at := func(path string) string { return port.TunnelPath + path }
	for _, lie := range []struct{ name, request, want string }{
		{"a challenge", post(evidence.ChallengePath, challenge(nonce)), "HTTP/1.1 200 "},
		{"challenge by GET", get(evidence.ChallengePath), "HTTP/1.1 405 "},
		{"challenge too long", post(evidence.ChallengePath, strings.Repeat(" ", 2000)), "HTTP/1.1 413 "},
		{"challenge without end", "POST " + evidence.ChallengePath + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1000\r\n"+strings.Repeat(" ", 4096)+"\r\n", 64), "HTTP/1.1 413 "},
		{"challenge that is not JSON", post(evidence.ChallengePath, "<nonce/>"), "HTTP/1.1 400 "},
		{"challenge with a member twice", post(evidence.ChallengePath, `{"nonce":"00",`+challenge(nonce)[1:]), "HTTP/1.1 400 "},
		{"challenge of another version", post(evidence.ChallengePath, strings.Replace(challenge(nonce), "v1", "v9", 1)), "HTTP/1.1 400 "},
		{"nonce too short", post(evidence.ChallengePath, challenge("abcd")), "HTTP/1.1 400 "},
		{"nonce too long", post(evidence.ChallengePath, challenge(strings.Repeat("ab", 65))), "HTTP/1.1 400 "},
		{"head too long", get("/", "X: "+strings.Repeat("x", 64<<10)+"\r\n"), "HTTP/1.1 431 "},
		{"head that never ends", "GET / HTTP/1.1\r\nHost: a\r\n", "closed: <nil>"}, // after 15 s
		{"two lengths", "POST " + evidence.ChallengePath + " HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "HTTP/1.1 400 "},
		{"not HTTP", "SSH-2.0-host\r\n\r\n", "HTTP/1.1 400 "},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 400 "},
		{"tunnel to a port that is not named", get(at("22"), upgrade), "HTTP/1.1 404 "},
		{"tunnel to the agent's own port", get(at("1"), upgrade), "HTTP/1.1 404 "},
		{"tunnel to port 0", get(at("0"), upgrade), "HTTP/1.1 404 "},
		{"tunnel to a number too large", get(at("73616"), upgrade), "HTTP/1.1 404 "}, // 8080 and 2^16
		{"tunnel to a name", get(at("localhost:8080"), upgrade), "HTTP/1.1 404 "},
		{"tunnel by a path", get(at("22/../8080/../22"), upgrade), "HTTP/1.1 307 "},
		{"tunnel without an upgrade", get(at("8080")), "HTTP/1.1 426 "},
		{"tunnel of another protocol", get(at("8080"), "Connection: Upgrade\r\nUpgrade: tcp\r\n"), "HTTP/1.1 426 "},
		{"tunnel with a body", get(at("8080"), upgrade, "Content-Length: 3\r\n") + "abc", "HTTP/1.1 426 "},
		{"secrets that are not asked for", post("/v1/secrets", "{}"), "HTTP/1.1 404 "},
	} {
		t.Run(lie.name, func(t *testing.T) {
			got := exchange(t, agent, nil, lie.request)
			if !strings.HasPrefix(got, lie.want) || strings.Contains(got, " 101 ") || strings.Contains(got, "hello") {
				t.Errorf("answer %.200q, want %q", got, lie.want)
			}
		})
	}
	t.Run("TLS 1.2", func(t *testing.T) {
		conn, err := tls.Dial("tcp", agent, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		if err == nil {
			conn.Close()
			t.Error("it was taken")
		}
	})
	t.Run("docker", func(t *testing.T) { lieAboutClients(t, agent) })
	t.Run("places", func(t *testing.T) { takePlaces(t, agent) })
}

// To who has no key that the spec names, what is for those who have is not there.
func lieAboutClients(t *testing.T, agent string) {
	stranger := client(t, signer(t, s.other))
	nothing := exchange(t, agent, nil, get("/nowhere"))
	if !strings.HasPrefix(nothing, "HTTP/1.1 404 ") {
		t.Fatal(nothing)
	}
	for name, key := range map[string]*tls.Certificate{"without a key": nil, "with another key": stranger} {
		for _, path := range []string{"/_ping", "/info", "/containers/json", "/v1.47/containers/json", "/containers/workload/exec", "/containers/workload/archive?path=/"} {
			t.Run(name+path, func(t *testing.T) {
				if got := exchange(t, agent, key, get(path)); got != nothing {
					t.Errorf("answer %q, want %q", got, nothing)
				}
			})
		}
	}
	// The certificate of a client that is named, without its key.
	forged := client(t, signer(t, s.owner))
	forged.PrivateKey = stranger.PrivateKey
	t.Run("with another's certificate", func(t *testing.T) {
		if got := exchange(t, agent, forged, get("/nowhere")); strings.HasPrefix(got, "HTTP/") {
			t.Errorf("answer %q", got)
		}
	})
}

// Strangers that say nothing, several for each place there is, do not keep others out
// for as long as a request may take to arrive: a client that the spec names, and one
// without a key.
func takePlaces(t *testing.T, agent string) {
	named := client(t, signer(t, s.owner))
	for name, key := range map[string]*tls.Certificate{"for a client with a key": named, "for one without": nil} {
		t.Run(name, func(t *testing.T) {
			for range 160 {
				conn, err := net.Dial("tcp", agent)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				time.Sleep(20 * time.Millisecond) // QEMU's own queue holds one
			}
			began := time.Now()
			if got := exchange(t, agent, key, post(evidence.ChallengePath, challenge(strings.Repeat("ab", 32)))); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Errorf("answer %.200q", got)
			}
			if took := time.Since(began); took > 12*time.Second {
				t.Errorf("the answer took %v", took)
			}
		})
	}
}
