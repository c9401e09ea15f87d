// Package fakekds answers as AMD's Key Distribution Service does, from whatever
// collateral it is given, and badly if it is told to. It serves for tests, ours and
// others'. It makes no certificates: what it hands out is as genuine as its Source.
package fakekds

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/kraudcloud/kattest/verifier"
)

// Fault is a bad answer.
type Fault int

// The faults.
const (
	TooMany     Fault = iota // 429, with Retry-After: 1
	Unavailable              // 503
	Silent                   // nothing until the client goes away
	Cut                      // half of the true answer
	Garbage                  // bytes that are no certificate, with 200
	Redirect                 // to another address
	Endless                  // bytes until the client goes away
)

// Server is a fake service. It is safe for concurrent use.
type Server struct {
	source verifier.Source

	mu       sync.Mutex
	faults   []Fault
	requests []string
}

// New returns a service that hands out what source has.
func New(source verifier.Source) *Server { return &Server{source: source} }

// Fail answers the next requests with faults, one each.
func (s *Server) Fail(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Requests returns the paths and queries that were asked for, in order.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

func (s *Server) next(r *http.Request) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.URL.RequestURI())
	if len(s.faults) == 0 {
		return 0, false
	}
	f := s.faults[0]
	s.faults = s.faults[1:]
	return f, true
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault, bad := s.next(r)
	data, err := s.answer(r)
	switch {
	case bad:
		misbehave(w, r, fault, data)
	case errors.Is(err, verifier.ErrNotFound):
		http.Error(w, "not found", http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		_, _ = w.Write(data) // a client that went away
	}
}

func misbehave(w http.ResponseWriter, r *http.Request, f Fault, data []byte) {
	switch f {
	case TooMany:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case Unavailable:
		w.WriteHeader(http.StatusServiceUnavailable)
	case Silent:
		<-r.Context().Done()
	case Cut:
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:len(data)/2])
	case Garbage:
		_, _ = w.Write([]byte("<html>no certificate</html>"))
	case Redirect:
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	case Endless:
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}
}

// answer finds what the request's path names.
// Source: AMD 57230 rev 1.00, section 4.
func (s *Server) answer(r *http.Request) ([]byte, error) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if r.Method != http.MethodGet || len(parts) != 4 || parts[1] != "v1" {
		return nil, fmt.Errorf("%s %s is nothing that the service knows", r.Method, r.URL.Path)
	}
	key, ok := map[string]verifier.SigningKey{"vcek": verifier.VCEK, "vlek": verifier.VLEK}[parts[0]]
	p, err := verifier.ParseProduct(parts[2])
	if !ok || err != nil || p.String() != parts[2] {
		return nil, fmt.Errorf("%s: unknown key or product", r.URL.Path)
	}
	switch {
	case parts[3] == "cert_chain":
		return s.source.Chain(r.Context(), p, key)
	case parts[3] == "crl":
		return s.source.CRL(r.Context(), p, key)
	case key == verifier.VCEK:
		hwid, err := hex.DecodeString(parts[3])
		if err != nil {
			return nil, fmt.Errorf("HWID: %w", err)
		}
		tcb, err := levels(p, r.URL.Query())
		if err != nil {
			return nil, err
		}
		return s.source.VCEK(r.Context(), p, hwid, tcb)
	default:
		return nil, verifier.ErrNotFound // a VLEK needs the provider's secret
	}
}

// levels reads a TCB, of which every level must be there, and no other.
func levels(p verifier.Product, query url.Values) (verifier.TCB, error) {
	var t verifier.TCB
	fields := map[string]*byte{"blSPL": &t.Bootloader, "teeSPL": &t.TEE, "snpSPL": &t.SNP, "ucodeSPL": &t.Microcode}
	if p == verifier.Turin {
		fields["fmcSPL"] = &t.FMC
	}
	if len(query) != len(fields) {
		return verifier.TCB{}, fmt.Errorf("%d levels, want %d", len(query), len(fields))
	}
	for name, field := range fields {
		n, err := strconv.ParseUint(query.Get(name), 10, 8)
		if err != nil {
			return verifier.TCB{}, fmt.Errorf("%s: %w", name, err)
		}
		*field = byte(n)
	}
	return t, nil
}
