// Package channel is a client's end of a connection to a guest's agent: TLS 1.3,
// a challenge over it, and what may follow once the answer was judged. The protocol
// is documented in docs/spec/channel.md.
//
// It judges nothing. Until a verifier has found that evidence binds the connection's
// Key and Exporter, who is at the other end is anyone.
package channel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/internal/splice"
	"github.com/kraudcloud/kattest/internal/vsock"
)

// maxHeader bounds the head of an answer, in bytes.
const maxHeader = 16 << 10

// Conn is a connection to an agent, on which one request is asked at a time.
type Conn struct {
	conn *tls.Conn
	head *bounded
	r    *bufio.Reader
	host string
}

// Dial connects to HOST:PORT, or vsock:CID:PORT, with the client's key if there is
// one. ctx is for the connecting alone.
func Dial(ctx context.Context, address string, client *tls.Certificate) (*Conn, error) {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // the certificate says nothing: evidence vouches for its key
		NextProtos:         []string{"http/1.1"},
	}
	if client != nil {
		config.Certificates = []tls.Certificate{*client}
	}
	if strings.HasPrefix(address, vsock.Prefix) {
		return dialVsock(ctx, address, config)
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return newConn(conn.(*tls.Conn), address), nil
}

func dialVsock(ctx context.Context, address string, config *tls.Config) (*Conn, error) {
	to, err := vsock.Parse(address)
	if err != nil {
		return nil, err
	}
	under, err := vsock.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(under, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		under.Close()
		return nil, err
	}
	return newConn(conn, "guest"), nil // its address is no URL's host
}

func newConn(conn *tls.Conn, host string) *Conn {
	head := &bounded{r: conn}
	return &Conn{conn: conn, head: head, r: bufio.NewReader(head), host: host}
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Key is the agent's, at which the connection ends: DER SubjectPublicKeyInfo.
func (c *Conn) Key() []byte {
	return c.conn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo
}

// Exporter is what this connection alone has, 32 bytes: see evidence.ExporterLabel.
func (c *Conn) Exporter() ([]byte, error) {
	state := c.conn.ConnectionState()
	return state.ExportKeyingMaterial(evidence.ExporterLabel, nil, evidence.ExporterSize)
}

// Challenge asks for evidence over a nonce. What comes is not looked at.
func (c *Conn) Challenge(ctx context.Context, nonce []byte) ([]byte, error) {
	body, err := json.Marshal(evidence.Challenge{MediaType: evidence.ChallengeMediaType, Nonce: nonce})
	if err != nil {
		return nil, err
	}
	return c.Post(ctx, evidence.ChallengePath, evidence.ChallengeMediaType, body, evidence.MaxSize)
}

// A StatusError is an answer that is none of success.
type StatusError struct {
	Status int
	Text   string // the body's beginning, as the agent says it
}

// Error names the status, and quotes the text.
func (e *StatusError) Error() string {
	return fmt.Sprintf("status %d %s: %.200q", e.Status, http.StatusText(e.Status), e.Text)
}

// Post sends a body and returns the answer's, of at most limit bytes. The error is a
// *StatusError where the agent refuses.
func (c *Conn) Post(ctx context.Context, path, mediaType string, body []byte, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := c.do(ctx, req)
	if err != nil {
		return nil, err
	}
	defer c.until(ctx)()
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, cause(ctx, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("the answer has more than %d bytes", limit)
	}
	return data, nil
}

// Upgrade makes the connection one of another protocol, and hands it over: it is
// closed by who got it.
func (c *Conn) Upgrade(ctx context.Context, path, protocol string) (net.Conn, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.host+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	resp, err := c.do(ctx, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != protocol {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return splice.Buffered(c.conn, c.r), nil
}

func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // what there is of it
	return &StatusError{resp.StatusCode, string(bytes.TrimSpace(text))}
}

// do sends a request and reads the head of its answer.
func (c *Conn) do(ctx context.Context, req *http.Request) (*http.Response, error) {
	defer c.until(ctx)()
	if err := req.Write(c.conn); err != nil {
		return nil, cause(ctx, err)
	}
	c.head.left = maxHeader
	resp, err := http.ReadResponse(c.r, req)
	c.head.left = -1
	if err != nil {
		return nil, cause(ctx, err)
	}
	return resp, nil
}

// until ends what waits on the connection when ctx does, up to the call of what it
// returns.
func (c *Conn) until(ctx context.Context) (stop func()) {
	done := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { done() }
}

// cause prefers why the context ended.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// bounded reads without end but where left is not negative.
type bounded struct {
	r    io.Reader
	left int
}

var errHead = errors.New("the head of the answer is too long")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return b.r.Read(p)
	}
	if b.left == 0 {
		return 0, errHead
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
