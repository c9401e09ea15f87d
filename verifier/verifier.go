// Package verifier judges what an AMD SEV-SNP guest answers: whether a genuine
// processor signed the report, and whether the report says what a policy
// demands. Every check stands in the result, with what was expected and found.
//
// It judges bytes that it is given and never uses the network. It does not
// consult revocation lists (the result says so), does not check who signed the
// reference values that a policy carries, and cannot see what a guest does
// after its launch: a report tells what was launched, with which firmware.
// The result's format is documented in docs/spec/result.md.
package verifier

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// MaxInput is the largest input that ParseInput reads, in bytes.
const MaxInput = evidence.MaxSize

// Input is what is judged.
type Input struct {
	Report Report
	// Certificates is the certificate table that came with the report; the zero
	// value where none did.
	Certificates CertificateTable
	// Evidence is the guest's answer to a challenge, nil for a bare report.
	Evidence *evidence.Evidence
}

// ParseInput reads evidence JSON, a report of 1184 bytes, or a report with a
// certificate table (GHCB) behind it.
func ParseInput(data []byte) (Input, error) {
	if len(data) > MaxInput {
		return Input{}, fmt.Errorf("%d bytes, more than %d", len(data), MaxInput)
	}
	// A report begins with its version, never with a brace or white space.
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) > 0 && text[0] == '{' {
		e, err := evidence.Parse(data)
		if err != nil {
			return Input{}, err
		}
		in, err := newInput(e.Report, e.Certificates)
		if err != nil {
			return Input{}, fmt.Errorf("evidence: %w", err)
		}
		in.Evidence = &e
		return in, nil
	}
	if len(data) < ReportSize {
		return Input{}, fmt.Errorf("report: %d bytes, want %d, or evidence in JSON", len(data), ReportSize)
	}
	return newInput(data[:ReportSize], data[ReportSize:])
}

func newInput(report, table []byte) (Input, error) {
	r, err := ParseReport(report)
	if err != nil {
		return Input{}, err
	}
	certs, err := ParseCertificateTable(table)
	if err != nil {
		return Input{}, err
	}
	return Input{Report: r, Certificates: certs}, nil
}

// Reference is a launch digest that is accepted, or one that is known.
type Reference struct {
	Measurement measure.Digest
	VCPUs       int    // 0 where unknown
	Label       string // for people: how such a guest is launched
}

// Policy says what is demanded. Its zero value accepts nothing: whatever is
// neither given nor left out by a Without… field fails.
type Policy struct {
	// Time is when certificates must be valid. The zero value is refused.
	Time time.Time
	// VCEK endorses the report in place of the table's certificate, if not nil.
	VCEK *x509.Certificate
	// SimulatedChain is the ASK and ARK of a simulated PSP, see
	// ParseSimulatedChain. Where it is given, nothing else is trusted, AMD's
	// roots included.
	SimulatedChain []*x509.Certificate
	// AuthenticityOnly judges certificates and signature and nothing else.
	AuthenticityOnly bool

	References []Reference // of which one must match
	VCPUs      int         // the number of vCPUs that the reference must have; 0 is any
	ReportData *[64]byte
	Nonce      []byte // that the evidence must carry
	TLSKey     []byte // DER SubjectPublicKeyInfo of the connection, nil where there was none
	HostData   *[32]byte
	VMPL       uint32
	// RequiredBits and ForbiddenBits of the guest policy, as a release names
	// them. DEBUG and MIGRATE_MA are forbidden in any case.
	RequiredBits, ForbiddenBits GuestPolicy
	// MinimumTCB must be reached by the reported, committed and launch TCB in
	// each component. Nil is no minimum, which the result shows.
	MinimumTCB *TCB
	// IDKeys and AuthorKeys are the digests of the keys of which one must have
	// signed the guest's ID block, and one that ID key. Empty is not checked.
	IDKeys, AuthorKeys []idblock.KeyDigest
	// FamilyID, ImageID and MinimumGuestSVN are demanded of the ID block, which
	// needs one of the keys: any host can sign an ID block. Nil and 0 are not
	// checked.
	FamilyID, ImageID *[16]byte
	MinimumGuestSVN   uint32
	// CSPID must be named by a VLEK.
	CSPID string

	// What is left out. The result shows each.
	WithoutMeasurement, WithoutNonce, WithoutHostData, WithoutVMPL bool
	WithoutDebug, WithoutMigration, WithoutCommitted, WithoutCSPID bool
}

// ErrTime says that a policy has no time at which to judge certificates.
var ErrTime = errors.New("the policy names no time at which to judge certificates")

// Verify judges in by policy. An error means that the policy cannot be applied,
// and no verdict; a report that is refused is no error.
func Verify(in Input, policy Policy) (Result, error) {
	if policy.Time.IsZero() {
		return Result{}, ErrTime
	}
	v := &verification{in: in, policy: policy}
	if err := v.checkAuthenticity(); err != nil {
		return Result{}, err
	}
	if !policy.AuthenticityOnly {
		v.checkBinding()
		v.checkMeasurement()
		v.checkIDBlock()
		v.checkHostData()
		v.checkGuestPolicy()
		v.checkTCB()
	}
	return v.result(), nil
}

// verification collects the checks of one call of Verify.
type verification struct {
	in        Input
	policy    Policy
	product   Product
	simulated bool
	checks    []Check
}

func (v *verification) add(c Check) { v.checks = append(v.checks, c) }

// compare adds a check that passes where expected and found are the same.
func (v *verification) compare(c Check) {
	c.Outcome = Fail
	if c.Expected == c.Found {
		c.Outcome, c.Reason, c.Hint = Pass, "", ""
	}
	v.add(c)
}

func (v *verification) skip(code Code, found, reason string) {
	v.add(Check{Code: code, Outcome: Skipped, Found: found, Reason: reason})
}
