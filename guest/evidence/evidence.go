// Package evidence is what a guest answers to a challenge: an attestation
// report and what its REPORT_DATA binds. The format is documented in
// docs/spec/evidence.md.
//
// The package checks form and binding inputs alone; whether the report is
// genuine is for the verifier to say.
package evidence

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/internal/strictjson"
)

// MediaType names this version of the format.
const MediaType = "application/vnd.kattest.evidence.v2+json"

// ChallengeMediaType names this version of the challenge.
const ChallengeMediaType = "application/vnd.kattest.challenge.v1+json"

// ChallengePath is the path to which a challenge is sent (POST).
const ChallengePath = "/v1/evidence"

// Bounds, in bytes, and the number of events.
const (
	MinNonce        = 16
	MaxNonce        = 64
	MaxSize         = 1 << 20
	MaxCertificates = 64 << 10
	MaxPublicKey    = 4 << 10
	ExporterSize    = 32
	MaxEvents       = 4096
	ReportSize      = 1184
)

// maxValues is the number of JSON values in evidence: three for each event, and
// some more.
const maxValues = 4 * MaxEvents

// ExporterLabel is that of the connection's exported keying material, of which both
// ends make ExporterSize bytes with an empty context: evidence is for one connection,
// and can be handed on by none that has the guest's key.
// Source: RFC 9266, section 4.1 (tls-exporter); RFC 8446, section 7.5.
const ExporterLabel = "EXPORTER-Channel-Binding"

// domain separates this REPORT_DATA from that of any other protocol, and of
// the reports that a workload asks for.
const domain = "kattest evidence v2"

// Hex is a byte string written in hexadecimal.
type Hex []byte

// String returns h in lower-case hexadecimal.
func (h Hex) String() string { return hex.EncodeToString(h) }

// MarshalText returns h in lower-case hexadecimal.
func (h Hex) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads hexadecimal digits.
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("%.80q is not hexadecimal", text)
	}
	*h = b
	return nil
}

// Challenge asks a guest for evidence.
type Challenge struct {
	MediaType string `json:"mediaType"`
	Nonce     Hex    `json:"nonce"` // 16 to 64 bytes
}

// ParseChallenge reads and checks a challenge.
func ParseChallenge(data []byte) (Challenge, error) {
	var c Challenge
	if err := strictjson.Decode(data, &c); err != nil {
		return Challenge{}, fmt.Errorf("challenge: %w", err)
	}
	if c.MediaType != ChallengeMediaType {
		return Challenge{}, fmt.Errorf("challenge: mediaType: %.80q, want %q", c.MediaType, ChallengeMediaType)
	}
	if err := checkNonce(c.Nonce); err != nil {
		return Challenge{}, fmt.Errorf("challenge: %w", err)
	}
	return c, nil
}

// Evidence is the answer to a challenge.
type Evidence struct {
	MediaType string `json:"mediaType"`
	// Report is the attestation report, 1184 bytes (AMD 56860, MSG_REPORT_RSP).
	Report []byte `json:"report"`
	// Certificates is the certificate table that the host supplied with the
	// report (GHCB, SNP extended guest request), or empty.
	Certificates []byte `json:"certificates,omitempty"`
	// Nonce is the challenge's.
	Nonce Hex `json:"nonce"`
	// PublicKey is the guest's TLS key, a DER SubjectPublicKeyInfo.
	PublicKey []byte `json:"publicKey"`
	// Exporter is the keying material that this connection alone has, 32 bytes: see
	// ExporterLabel.
	Exporter Hex `json:"exporter"`
	// Events is the agent's event log.
	Events []Event `json:"events"`
}

// Event is one entry of the agent's event log.
type Event struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Parse reads evidence and checks its form.
func Parse(data []byte) (Evidence, error) {
	if len(data) > MaxSize {
		return Evidence{}, fmt.Errorf("evidence: %d bytes, more than %d", len(data), MaxSize)
	}
	var e Evidence
	if err := strictjson.DecodeBounded(data, &e, maxValues); err != nil {
		return Evidence{}, fmt.Errorf("evidence: %w", err)
	}
	if err := e.check(); err != nil {
		return Evidence{}, fmt.Errorf("evidence: %w", err)
	}
	return e, nil
}

func (e Evidence) check() error {
	var errs []error
	if e.MediaType != MediaType {
		errs = append(errs, fmt.Errorf("mediaType: %.80q, want %q", e.MediaType, MediaType))
	}
	if len(e.Report) != ReportSize {
		errs = append(errs, fmt.Errorf("report: %d bytes, want %d", len(e.Report), ReportSize))
	}
	if len(e.Certificates) > MaxCertificates {
		errs = append(errs, fmt.Errorf("certificates: %d bytes, more than %d", len(e.Certificates), MaxCertificates))
	}
	if err := checkNonce(e.Nonce); err != nil {
		errs = append(errs, err)
	}
	if n := len(e.PublicKey); n == 0 || n > MaxPublicKey {
		errs = append(errs, fmt.Errorf("publicKey: %d bytes, want 1 to %d", n, MaxPublicKey))
	}
	if n := len(e.Exporter); n != ExporterSize {
		errs = append(errs, fmt.Errorf("exporter: %d bytes, want %d", n, ExporterSize))
	}
	if len(e.Events) > MaxEvents {
		errs = append(errs, fmt.Errorf("events: %d, more than %d", len(e.Events), MaxEvents))
	}
	return errors.Join(errs...)
}

func checkNonce(nonce []byte) error {
	if n := len(nonce); n < MinNonce || n > MaxNonce {
		return fmt.Errorf("nonce: %d bytes, want %d to %d", n, MinNonce, MaxNonce)
	}
	return nil
}

// ReportData returns what REPORT_DATA must hold for this evidence.
func (e Evidence) ReportData() [64]byte {
	return ReportData(e.Nonce, e.PublicKey, e.Exporter, EventsDigest(e.Events))
}

// ReportData binds a nonce, a TLS key (DER SubjectPublicKeyInfo), a connection's
// exporter and the event log's digest: SHA-512 over the five fields domain, nonce,
// key, exporter and digest, each preceded by its length in bytes as a 32-bit
// little-endian number.
func ReportData(nonce, publicKey, exporter []byte, events [32]byte) [64]byte {
	h := sha512.New()
	for _, field := range [][]byte{[]byte(domain), nonce, publicKey, exporter, events[:]} {
		h.Write(appendField(nil, field))
	}
	return [64]byte(h.Sum(nil))
}

// EventsDigest folds the log, from 32 zero bytes on: each event makes
// SHA-256(previous ‖ name ‖ value), name and value preceded by their lengths in
// bytes as 32-bit little-endian numbers.
func EventsDigest(events []Event) [32]byte {
	var digest [32]byte
	for _, ev := range events {
		b := append([]byte(nil), digest[:]...)
		b = appendField(b, []byte(ev.Name))
		b = appendField(b, []byte(ev.Value))
		digest = sha256.Sum256(b)
	}
	return digest
}

func appendField(b, field []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(field)))
	return append(b, field...)
}
