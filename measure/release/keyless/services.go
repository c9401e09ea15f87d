package keyless

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	httptransport "github.com/go-openapi/runtime/client"
	"github.com/go-openapi/strfmt"
	"github.com/sigstore/rekor/pkg/generated/client/entries"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
)

// MaxSigningConfig is the largest signing configuration that is read, in bytes.
const MaxSigningConfig = 1 << 20

// maxAnswer bounds a service's answer, in bytes: a log's entry holds the statement.
const maxAnswer = 10 << 20

// Services are those that a signing configuration names and that are good now.
type Services struct {
	authority root.Service
	stamps    []root.Service
	logs      []root.Service
}

// ParseSigningConfig reads a signing configuration, JSON of media type
// application/vnd.dev.sigstore.signingconfig.v0.2+json, and chooses the services
// of that time as its selectors say. Their addresses are https, or http of a
// loopback address: a token must not be read on its way.
//
// A configuration is refused whose bundles Verify would refuse: without a log, or
// without whoever tells the time. Logs of version 2 do not.
func ParseSigningConfig(data []byte, at time.Time) (Services, error) {
	s, err := parseSigningConfig(data, at)
	if err != nil {
		return Services{}, fmt.Errorf("signing configuration: %w", err)
	}
	return s, nil
}

func parseSigningConfig(data []byte, at time.Time) (Services, error) {
	if len(data) > MaxSigningConfig {
		return Services{}, fmt.Errorf("%d bytes, more than %d", len(data), MaxSigningConfig)
	}
	message, err := root.NewSigningConfigProtobuf(data)
	if err != nil {
		return Services{}, err
	}
	if message.GetRekorTlogConfig() == nil || len(message.GetTsaUrls()) > 0 && message.GetTsaConfig() == nil { // which sigstore-go takes for granted
		return Services{}, errors.New("rekorTlogConfig, tsaConfig: missing, so that nothing says how many services to ask")
	}
	config, err := root.NewSigningConfigFromProtobuf(message)
	if err != nil {
		return Services{}, err
	}
	var s Services
	if s.authority, err = root.SelectService(config.FulcioCertificateAuthorityURLs(), sign.FulcioAPIVersions, at); err != nil {
		return Services{}, fmt.Errorf("caUrls: %w", err)
	}
	if s.logs, err = root.SelectServices(config.RekorLogURLs(), config.RekorLogURLsConfig(), sign.RekorAPIVersions, at); err != nil {
		return Services{}, fmt.Errorf("rekorTlogUrls: %w", err)
	}
	if len(config.TimestampAuthorityURLs()) > 0 {
		if s.stamps, err = root.SelectServices(config.TimestampAuthorityURLs(), config.TimestampAuthorityURLsConfig(), sign.TimestampAuthorityAPIVersions, at); err != nil {
			return Services{}, fmt.Errorf("tsaUrls: %w", err)
		}
	}
	if len(s.stamps) == 0 && s.logs[0].MajorAPIVersion > 1 {
		return Services{}, errors.New("tsaUrls: none, and logs of version 2 tell no time")
	}
	for _, service := range append(append([]root.Service{s.authority}, s.stamps...), s.logs...) {
		u, err := url.Parse(service.URL)
		if err == nil {
			err = checkAddress(u)
		}
		if err != nil {
			return Services{}, err
		}
	}
	return s, nil
}

// checkAddress refuses what anybody on the way can read.
func checkAddress(u *url.URL) error {
	if u.Scheme == "https" && u.Host != "" {
		return nil
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%.200q: want https, or http of a loopback address such as 127.0.0.1", u.Redacted())
}

// clients returns what asks these services.
func (s Services) clients(ctx context.Context) (sign.BundleOptions, error) {
	var options sign.BundleOptions
	asked := newTransport(ctx)
	options.CertificateProvider = certifier{sign.NewFulcio(&sign.FulcioOptions{BaseURL: s.authority.URL, Transport: asked}), asked}
	for _, stamp := range s.stamps {
		options.TimestampAuthorities = append(options.TimestampAuthorities,
			sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: stamp.URL, Transport: newTransport(ctx)}))
	}
	for _, log := range s.logs {
		client := &sign.RekorOptions{BaseURL: log.URL, Version: log.MajorAPIVersion}
		if log.MajorAPIVersion == 1 { // whose own client reads answers of any size
			u, err := url.Parse(log.URL)
			if err != nil {
				return sign.BundleOptions{}, err
			}
			runtime := httptransport.NewWithClient(u.Host, u.Path, []string{u.Scheme}, &http.Client{Transport: newTransport(ctx)})
			client.Client = checkedLog{entries.New(runtime, strfmt.NewFormats())}
		}
		options.TransparencyLogs = append(options.TransparencyLogs, transparencyLog{sign.NewRekor(client)})
	}
	return options, nil
}

// checkedLog is a log of version 1 whose answers lack nothing that sigstore-go
// takes for granted.
type checkedLog struct{ entries.ClientService }

// CreateLogEntry implements sign.RekorClient.
func (l checkedLog) CreateLogEntry(params *entries.CreateLogEntryParams, options ...entries.ClientOption) (*entries.CreateLogEntryCreated, error) {
	created, err := l.ClientService.CreateLogEntry(params, options...)
	if _, ok := errors.AsType[*entries.CreateLogEntryConflict](err); ok {
		return nil, errors.New("it says that it has the entry, of a key that is new")
	}
	if err != nil {
		return nil, err
	}
	entry, ok := created.Payload[created.ETag]
	if !ok || entry.LogID == nil || entry.LogIndex == nil || entry.IntegratedTime == nil || entry.Verification == nil {
		return nil, errors.New("its answer is no entry")
	}
	proof := entry.Verification.InclusionProof
	if proof == nil || proof.LogIndex == nil || proof.RootHash == nil || proof.TreeSize == nil || proof.Checkpoint == nil {
		return nil, errors.New("its answer is an entry without an inclusion proof")
	}
	return created, nil
}

// transport bounds what a service may answer, and how long it may take; clients of
// sigstore-go do not stop when they are told to. An answer of a failed service is
// an error.
type transport struct {
	ctx    context.Context
	status atomic.Int32 // of the last answer
}

func newTransport(ctx context.Context) *transport { return &transport{ctx: ctx} }

// refused says that the last answer was that the request is not granted.
func (t *transport) refused() bool {
	switch t.status.Load() {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return true
	}
	return false
}

// RoundTrip implements http.RoundTripper. It is called for redirects too.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.status.Store(0)
	if err := checkAddress(req.URL); err != nil {
		return nil, err
	}
	resp, err := http.DefaultTransport.RoundTrip(req.WithContext(t.ctx))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	case resp.StatusCode >= http.StatusInternalServerError, resp.StatusCode == http.StatusTooManyRequests:
		return nil, fmt.Errorf("it answers %s: %.200q", resp.Status, body)
	}
	t.status.Store(int32(resp.StatusCode)) //nolint:gosec // three digits
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}
