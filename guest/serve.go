package guest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"time"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/guest/platform"
	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/guest/port"
	"github.com/kraudcloud/kattest/guest/secrets"
)

// Bounds of what a client may ask of the agent.
const (
	maxChallenge   = 1 << 10 // bytes
	maxHeader      = 8 << 10 // bytes
	maxWaiting     = 8       // challenges that wait for the one being answered
	requestTimeout = 15 * time.Second
	answerTimeout  = 60 * time.Second
)

func (a *agent) serveEvidence(ctx context.Context) error {
	certificate, key, err := newCertificate()
	if err != nil {
		return fmt.Errorf("making the TLS key: %w", err)
	}
	listener, err := listen(ctx)
	if err != nil {
		return err
	}
	c := newChannel(listener, certificate, a.spec)
	c.mux.Handle("POST "+evidence.ChallengePath, newAnswerer(a.platform, key, &a.events, a.log))
	if a.spec.Secrets != nil && a.keys == nil {
		in, err := newIntake(a.spec, &a.events, a.log)
		if err != nil {
			return err
		}
		a.keys = in
		c.mux.Handle("POST "+secrets.Path, in)
	}
	if len(a.spec.Access) > 0 {
		a.serveDocker(c)
	}
	a.beside("evidence", c.serve)
	return a.control.send(port.Event{Name: port.EventServing})
}

// newCertificate makes the guest's TLS key, which never leaves its memory, and
// a certificate that says nothing: REPORT_DATA vouches for the key. It returns
// the key's DER SubjectPublicKeyInfo too. The certificate does not expire, as
// the guest's clock is the host's.
func newCertificate() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "kattest guest agent"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, section 4.1.2.5
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, public, nil
}

// channel is what is served on the agent's port.
type channel struct {
	gate   *gate
	known  clients
	mux    *http.ServeMux // for all; what is for clients that are named goes through known
	server *http.Server
}

func newChannel(l net.Listener, certificate tls.Certificate, spec pod.Spec) *channel {
	c := &channel{gate: newGate(l), known: newClients(spec.Access), mux: http.NewServeMux()}
	c.mux.Handle("GET "+port.TunnelPath+"{port}", &tunnel{spec.Ports, c.gate})
	c.server = newServer(c.mux, tlsConfig(certificate, c.known))
	c.server.ConnState = c.gate.know(c.known)
	return c
}

// serve serves until the listener is closed.
func (c *channel) serve() error { return c.server.ServeTLS(c.gate, "", "") }

func newServer(h http.Handler, config *tls.Config) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		TLSConfig:         config,
		ConnContext:       withConn,
		Protocols:         protocols,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       requestTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // strangers must not fill the console
	}
}

// reporter gets reports: a *platform.Platform.
type reporter interface {
	Report(reportData [64]byte) (platform.Report, error)
}

// answerer answers challenges, one at a time.
type answerer struct {
	reporter  reporter
	publicKey []byte
	events    *eventLog
	log       *slog.Logger
	waiting   chan struct{} // one for each challenge that is in hand or waits
	turn      chan struct{} // held by the challenge in hand
}

func newAnswerer(r reporter, publicKey []byte, events *eventLog, log *slog.Logger) *answerer {
	return &answerer{
		reporter: r, publicKey: publicKey, events: events, log: log,
		waiting: make(chan struct{}, 1+maxWaiting),
		turn:    make(chan struct{}, 1),
	}
}

// ServeHTTP answers a challenge.
func (a *answerer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxChallenge))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		http.Error(w, fmt.Sprintf("challenge: more than %d bytes", maxChallenge), http.StatusRequestEntityTooLarge)
		return
	} else if err != nil {
		http.Error(w, "reading the challenge failed", http.StatusBadRequest)
		return
	}
	c, err := evidence.ParseChallenge(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case a.waiting <- struct{}{}:
		defer func() { <-a.waiting }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many challenges at a time", http.StatusServiceUnavailable)
		return
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-r.Context().Done():
		return
	}
	exporter, err := r.TLS.ExportKeyingMaterial(evidence.ExporterLabel, nil, evidence.ExporterSize)
	if err != nil {
		a.log.Error("exporting keying material", "error", err)
		http.Error(w, "no keying material", http.StatusInternalServerError)
		return
	}
	answer, err := a.answer(c.Nonce, exporter)
	if err != nil {
		a.log.Error("answering a challenge", "error", err)
		http.Error(w, "no report is to be had", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", evidence.MediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
	_, _ = io.Copy(w, bytes.NewReader(answer)) // whoever asked is gone
}

func (a *answerer) answer(nonce, exporter evidence.Hex) ([]byte, error) {
	e := evidence.Evidence{
		MediaType: evidence.MediaType,
		Nonce:     nonce,
		PublicKey: a.publicKey,
		Exporter:  exporter,
		Events:    a.events.snapshot(),
	}
	report, err := a.reporter.Report(e.ReportData())
	if err != nil {
		return nil, err
	}
	e.Report, e.Certificates = report.Raw[:], report.Certificates
	return json.Marshal(e)
}
