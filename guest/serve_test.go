package guest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/platform"
	"github.com/kraudcloud/kattest/guest/pod"
)

// fakeReporter reports nothing but REPORT_DATA. Each report takes as long as
// hold is held.
type fakeReporter struct {
	err      error
	hold     sync.Mutex
	inHand   atomic.Int32
	mostHand atomic.Int32
}

func (r *fakeReporter) Report(reportData [64]byte) (platform.Report, error) {
	if n := r.inHand.Add(1); n > r.mostHand.Load() {
		r.mostHand.Store(n)
	}
	defer r.inHand.Add(-1)
	r.hold.Lock()
	defer r.hold.Unlock()
	rep := platform.Report{Certificates: []byte{1, 2, 3}}
	copy(rep.Raw[0x50:], reportData[:])
	return rep, r.err
}

// serve runs the agent's server and returns its address and key.
func serve(t *testing.T, r reporter, events *eventLog) (address string, key []byte) {
	t.Helper()
	certificate, key, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveChannel(t, newChannel(listener, certificate, pod.Spec{}), newAnswerer(r, key, events, quiet()))
	return listener.Addr().String(), key
}

func serveChannel(t *testing.T, c *channel, challenges http.Handler) {
	t.Helper()
	c.mux.Handle("POST "+evidence.ChallengePath, challenges)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.serve(); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { c.server.Close(); <-done })
}

// client trusts every certificate, as REPORT_DATA vouches for the key. It
// offers HTTP/2, which the agent does not speak.
func client(change func(*tls.Config)) *http.Client {
	config := &tls.Config{InsecureSkipVerify: true}
	if change != nil {
		change(config)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
}

func challenge(t *testing.T, nonce []byte) []byte {
	t.Helper()
	b, err := json.Marshal(evidence.Challenge{MediaType: evidence.ChallengeMediaType, Nonce: nonce})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestChallenge(t *testing.T) {
	events := &eventLog{}
	events.add("spec", "abc")
	address, key := serve(t, &fakeReporter{}, events)
	nonce := bytes.Repeat([]byte{7}, 32)
	rsp, err := client(nil).Post("https://"+address+evidence.ChallengePath, evidence.ChallengeMediaType, bytes.NewReader(challenge(t, nonce)))
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	body, err := io.ReadAll(rsp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if rsp.StatusCode != http.StatusOK || rsp.Header.Get("Content-Type") != evidence.MediaType || rsp.ProtoMajor != 1 {
		t.Errorf("%s, %s, %s", rsp.Status, rsp.Header.Get("Content-Type"), rsp.Proto)
	}
	if rsp.TLS.Version != tls.VersionTLS13 {
		t.Errorf("TLS version %#x", rsp.TLS.Version)
	}
	e, err := evidence.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	// The three things that REPORT_DATA binds are those of this connection.
	if got, want := [64]byte(e.Report[0x50:0x90]), e.ReportData(); got != want {
		t.Errorf("REPORT_DATA %x, want %x", got, want)
	}
	public, err := x509.MarshalPKIXPublicKey(rsp.TLS.PeerCertificates[0].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(public, e.PublicKey) || !bytes.Equal(public, key) {
		t.Errorf("the connection's key is %x, the evidence's %x", public, e.PublicKey)
	}
	if !bytes.Equal(e.Nonce, nonce) || !bytes.Equal(e.Certificates, []byte{1, 2, 3}) {
		t.Errorf("nonce %s, certificates %x", e.Nonce, e.Certificates)
	}
	if diff := cmp.Diff([]evidence.Event{{Name: "spec", Value: "abc"}}, e.Events); diff != "" {
		t.Errorf("events -want +got:\n%s", diff)
	}
}

func TestChallengeRefuses(t *testing.T) {
	good := string(challenge(t, make([]byte, 32)))
	for _, tt := range []struct {
		name, method, path, body string
		err                      error
		status                   int
		want                     string
	}{
		{"GET", "GET", evidence.ChallengePath, "", nil, 405, ""},
		{"another path", "POST", "/", good, nil, 404, ""},
		{"no challenge", "POST", evidence.ChallengePath, "", nil, 400, "challenge: "},
		{"short nonce", "POST", evidence.ChallengePath, string(challenge(t, make([]byte, 15))), nil, 400, "nonce: 15 bytes, want 16 to 64"},
		{"long nonce", "POST", evidence.ChallengePath, string(challenge(t, make([]byte, 65))), nil, 400, "nonce: 65 bytes"},
		{"unknown member", "POST", evidence.ChallengePath, `{"a":1,` + good[1:], nil, 400, `unknown member "a"`},
		{"too long", "POST", evidence.ChallengePath, good + strings.Repeat(" ", maxChallenge), nil, 413, "more than 1024 bytes"},
		// What went wrong with the platform is the console's, not a stranger's.
		{"no report", "POST", evidence.ChallengePath, good, errors.New("secret"), 503, "no report is to be had\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address, _ := serve(t, &fakeReporter{err: tt.err}, &eventLog{})
			req, err := http.NewRequestWithContext(t.Context(), tt.method, "https://"+address+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			rsp, err := client(nil).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer rsp.Body.Close()
			body, err := io.ReadAll(rsp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if rsp.StatusCode != tt.status || !strings.Contains(string(body), tt.want) || strings.Contains(string(body), "secret") {
				t.Errorf("%s: %s; want %d, %q", rsp.Status, body, tt.status, tt.want)
			}
		})
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	address, _ := serve(t, &fakeReporter{}, &eventLog{})
	_, err := client(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }).Get("https://" + address)
	if !says(err, "protocol version") {
		t.Errorf("got error %v", err)
	}
}

// One report at a time; a few may wait; the rest is turned away at once.
func TestChallengesAreBounded(t *testing.T) {
	r := &fakeReporter{}
	address, _ := serve(t, r, &eventLog{})
	r.hold.Lock()
	const requests = 1 + maxWaiting + 4
	statuses := make(chan int, requests)
	body := challenge(t, make([]byte, 32))
	for range requests {
		go func() {
			rsp, err := client(nil).Post("https://"+address+evidence.ChallengePath, "", bytes.NewReader(body))
			if err != nil {
				statuses <- 0
				return
			}
			rsp.Body.Close()
			statuses <- rsp.StatusCode
		}()
	}
	count := map[int]int{}
	for range 4 { // those that are turned away answer while the report is held
		select {
		case status := <-statuses:
			count[status]++
		case <-time.After(time.Minute):
			t.Fatal("nobody is turned away")
		}
	}
	r.hold.Unlock()
	for range requests - 4 {
		count[<-statuses]++
	}
	if diff := cmp.Diff(map[int]int{200: 1 + maxWaiting, 503: 4}, count); diff != "" {
		t.Errorf("statuses -want +got:\n%s", diff)
	}
	if n := r.mostHand.Load(); n != 1 {
		t.Errorf("%d reports at a time", n)
	}
}

// A connection above the limit is accepted when another is closed.
func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := &gate{Listener: inner, strangers: make(class, 1), time: time.Hour}
	defer listener.Close()
	accepted := make(chan net.Conn, 2)
	go func() {
		for range 2 {
			conn, err := listener.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- conn
		}
	}()
	for range 2 {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("two connections at a time")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // makes room once
	(<-accepted).Close()
}
