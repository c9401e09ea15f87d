package verifier

import (
	"errors"
	"fmt"
	"time"
)

// MediaType names this version of the result's format.
const MediaType = "application/vnd.kattest.result.v1+json"

// Outcome is how a check ended.
type Outcome int

// The outcomes. The zero value is none.
const (
	_       Outcome = iota
	Pass            // found what was expected
	Fail            // did not
	Skipped         // left out: by an explicit choice, or by a policy that Reason states
)

func (o Outcome) String() string {
	switch o {
	case Pass:
		return "pass"
	case Fail:
		return "fail"
	case Skipped:
		return "skipped"
	default:
		return fmt.Sprintf("outcome %d", int(o))
	}
}

// MarshalText returns the outcome's name.
func (o Outcome) MarshalText() ([]byte, error) {
	if o < Pass || o > Skipped {
		return nil, errors.New("a check without an outcome")
	}
	return []byte(o.String()), nil
}

// Code names a check. Codes are stable; docs/spec/result.md says what each means.
type Code string

// The checks, in the order in which they stand in a result.
const (
	CodeCertificate  Code = "certificate"            // one was given for the report's signing key
	CodeKey          Code = "certificate.key"        // its kind is the report's SIGNING_KEY
	CodeProduct      Code = "certificate.product"    // its product is the report's
	CodeChain        Code = "certificate.chain"      // signed under a root that is trusted
	CodeValidity     Code = "certificate.validity"   // at the time of judgement
	CodeRevocation   Code = "certificate.revocation" // revocation lists
	CodeCertTCB      Code = "certificate.tcb"        // its TCB is the reported one
	CodeChipID       Code = "certificate.chip-id"    // VCEK: its HWID is CHIP_ID
	CodeCSPID        Code = "certificate.csp-id"     // VLEK: the provider
	CodeSignature    Code = "signature"              // over the report's raw bytes
	CodeNonce        Code = "nonce"                  // the evidence carries the verifier's
	CodeTLSKey       Code = "tls-key"                // the connection ends at the evidence's key
	CodeReportData   Code = "report-data"            // binds the evidence, or is the given one
	CodeMeasurement  Code = "measurement"            // which boot stack
	CodeIDKey        Code = "id-block.id-key"        // who signed the ID block
	CodeAuthorKey    Code = "id-block.author-key"    // who signed its key
	CodeFamilyID     Code = "id-block.family-id"     // what the ID block says
	CodeImageID      Code = "id-block.image-id"      // the same
	CodeGuestSVN     Code = "id-block.guest-svn"     // the same, a least version
	CodeHostData     Code = "host-data"              // which workload
	CodeVMPL         Code = "vmpl"                   // who in the guest asked
	CodeDebug        Code = "policy.debug"           // the host cannot read the guest
	CodeMigration    Code = "policy.migration"       // no migration agent
	CodePolicyBits   Code = "policy.bits"            // required and forbidden bits, reserved bits
	CodeCommittedTCB Code = "tcb.committed"          // no firmware that can be rolled back
	CodeMinimumTCB   Code = "tcb.minimum"            // levels that are demanded
)

// class groups checks by what their failure means for the exit code.
type class int

const (
	classPolicy class = iota
	classSignature
	classCollateral
)

func (c Code) class() class {
	switch c {
	case CodeCertificate:
		return classCollateral
	case CodeKey, CodeProduct, CodeChain, CodeValidity, CodeRevocation, CodeCertTCB, CodeChipID, CodeSignature, CodeTLSKey:
		return classSignature
	default:
		return classPolicy
	}
}

// Check is one check and its outcome.
type Check struct {
	Code     Code    `json:"code"`
	Outcome  Outcome `json:"outcome"`
	Expected string  `json:"expected,omitempty"`
	Found    string  `json:"found,omitempty"`
	Reason   string  `json:"reason,omitempty"` // why it failed or was left out, what it matched
	Hint     string  `json:"hint,omitempty"`   // what to do next
}

// Verdict sums up the checks.
type Verdict int

// The verdicts. The zero value is none.
const (
	_           Verdict = iota
	Verified            // all checks pass, but for those that stand as skipped
	Authentic           // signature and chain alone were judged, and hold
	Mismatch            // a check of what the report says failed
	Forged              // signature, certificate or chain do not hold
	Unavailable         // no certificate to judge the signature with
)

func (v Verdict) String() string {
	switch v {
	case Verified:
		return "verified"
	case Authentic:
		return "authentic"
	case Mismatch:
		return "mismatch"
	case Forged:
		return "not-authentic"
	case Unavailable:
		return "unavailable"
	default:
		return fmt.Sprintf("verdict %d", int(v))
	}
}

// MarshalText returns the verdict's name.
func (v Verdict) MarshalText() ([]byte, error) {
	if v < Verified || v > Unavailable {
		return nil, errors.New("a result without a verdict")
	}
	return []byte(v.String()), nil
}

// Result is what Verify found.
type Result struct {
	MediaType string  `json:"mediaType"`
	Verdict   Verdict `json:"verdict"`
	// Simulated says that a simulated PSP signed the report, whether it was
	// trusted or not: nothing of this holds for AMD hardware.
	Simulated        bool       `json:"simulated"`
	AuthenticityOnly bool       `json:"authenticityOnly"`
	Time             time.Time  `json:"time"` // at which certificates were judged
	Product          Product    `json:"product"`
	SigningKey       SigningKey `json:"signingKey"`
	Checks           []Check    `json:"checks"`
}

// result sums up: a broken signature is the worst, then a mismatch, which no
// certificate would mend, then a certificate that could not be had.
func (v *verification) result() Result {
	r := Result{
		MediaType:        MediaType,
		Verdict:          Verified,
		Simulated:        v.simulated,
		AuthenticityOnly: v.policy.AuthenticityOnly,
		Time:             v.policy.Time.UTC().Truncate(time.Second),
		Product:          v.product,
		SigningKey:       v.in.Report.SignerInfo.SigningKey(),
		Checks:           v.checks,
	}
	if r.AuthenticityOnly {
		r.Verdict = Authentic
	}
	failed := map[class]bool{}
	for _, c := range r.Checks {
		if c.Outcome != Pass && c.Outcome != Skipped {
			failed[c.Code.class()] = true
		}
	}
	switch {
	case failed[classSignature]:
		r.Verdict = Forged
	case failed[classPolicy]:
		r.Verdict = Mismatch
	case failed[classCollateral]:
		r.Verdict = Unavailable
	}
	return r
}

// With returns the checks of one outcome.
func (r Result) With(o Outcome) []Check {
	var checks []Check
	for _, c := range r.Checks {
		if c.Outcome == o {
			checks = append(checks, c)
		}
	}
	return checks
}
