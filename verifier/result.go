package verifier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kraudcloud/kattest/guest/evidence"
)

// MediaType names this version of the result's format.
const MediaType = "application/vnd.kattest.result.v1+json"

// Outcome is how a check ended.
type Outcome int

// The outcomes. The zero value is none, and never a success.
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

// UnmarshalText reads an outcome's name.
func (o *Outcome) UnmarshalText(text []byte) error {
	for known := Pass; known <= Skipped; known++ {
		if known.String() == string(text) {
			*o = known
			return nil
		}
	}
	return fmt.Errorf("unknown outcome %.40q", text)
}

// Forms of input.
const (
	FormReport   = "report"
	FormEvidence = "evidence"
	FormHCL      = "hcl-report"
	FormTPM      = "tpm-evidence"
)

// Check is one check and its outcome.
type Check struct {
	Code     Code    `json:"code"`
	Outcome  Outcome `json:"outcome"`
	Field    string  `json:"field,omitempty"` // by AMD's name
	Bytes    *Range  `json:"bytes,omitempty"` // of the report
	Expected string  `json:"expected,omitempty"`
	Found    string  `json:"found,omitempty"`
	Reason   string  `json:"reason,omitempty"` // why it failed or was left out, what it matched
	Hint     string  `json:"hint,omitempty"`   // what to do next
}

// Verdict sums up the checks.
type Verdict int

// The verdicts. The zero value is none, and never a success.
const (
	_           Verdict = iota
	Verified            // all checks pass, but for those that stand as skipped
	Authentic           // signature and chain alone were judged, and hold
	Mismatch            // a check of what the report says failed
	Forged              // signature, certificate or chain do not hold
	Unavailable         // no certificate or revocation list to judge with
	Malformed           // the input is not a report nor evidence
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
	case Malformed:
		return "malformed"
	default:
		return fmt.Sprintf("verdict %d", int(v))
	}
}

// MarshalText returns the verdict's name.
func (v Verdict) MarshalText() ([]byte, error) {
	if v < Verified || v > Malformed {
		return nil, errors.New("a result without a verdict")
	}
	return []byte(v.String()), nil
}

// UnmarshalText reads a verdict's name.
func (v *Verdict) UnmarshalText(text []byte) error {
	for known := Verified; known <= Malformed; known++ {
		if known.String() == string(text) {
			*v = known
			return nil
		}
	}
	return fmt.Errorf("unknown verdict %.40q", text)
}

// Result is what was found. It is documented in docs/spec/result.md.
type Result struct {
	MediaType string `json:"mediaType"`
	Subject   string `json:"subject,omitempty"` // what was judged: a file's name
	// Form is what was judged: report, evidence, hcl-report or tpm-evidence. The
	// bytes of checks are those of the report, wherever it stands in these.
	Form    string  `json:"form"`
	Verdict Verdict `json:"verdict"`
	// Simulated says that a simulated PSP signed the report, whether it was
	// trusted or not: nothing of this holds for AMD hardware.
	Simulated        bool      `json:"simulated"`
	AuthenticityOnly bool      `json:"authenticityOnly"`
	Time             time.Time `json:"time"` // at which certificates were judged
	// Product and SigningKey are unknown and VCEK where the input is malformed.
	Product    Product    `json:"product"`
	SigningKey SigningKey `json:"signingKey"`
	// Claims is what the report says, nil where it could not be read. It is to
	// be believed only as far as the verdict goes.
	Claims *Claims `json:"claims,omitempty"`
	// TPM is what a virtual TPM's quote says, nil where there is none that holds.
	TPM    *TPMClaims `json:"tpm,omitempty"`
	Checks []Check    `json:"checks"`
}

// Claims is what a report says of itself.
type Claims struct {
	Version     uint32       `json:"version"`
	VMPL        uint32       `json:"vmpl"`
	GuestSVN    uint32       `json:"guestSVN"`
	Policy      evidence.Hex `json:"policy"`       // 8 bytes, big-endian
	Platform    evidence.Hex `json:"platformInfo"` // 8 bytes, big-endian
	Measurement evidence.Hex `json:"measurement"`
	HostData    evidence.Hex `json:"hostData"`
	ReportData  evidence.Hex `json:"reportData"`
	ReportID    evidence.Hex `json:"reportID"`
	ChipID      evidence.Hex `json:"chipID"`
	ReportedTCB evidence.Hex `json:"reportedTCB"` // as it stands in the report
}

func (r Report) claims() *Claims {
	return &Claims{
		Version: r.Version, VMPL: r.VMPL, GuestSVN: r.GuestSVN,
		Policy: binary.BigEndian.AppendUint64(nil, uint64(r.Policy)), Platform: binary.BigEndian.AppendUint64(nil, uint64(r.PlatformInfo)),
		Measurement: r.Measurement[:], HostData: r.HostData[:], ReportData: r.ReportData[:],
		ReportID: r.ReportID[:], ChipID: r.ChipID[:], ReportedTCB: r.ReportedTCB[:],
	}
}

// Refusal is the error that goes with a result which is no success.
type Refusal struct{ Result Result }

func (e *Refusal) Error() string {
	var text []string
	for _, c := range e.Result.With(Fail) {
		text = append(text, fmt.Sprintf("%s: expected %s, found %s", c.Code, c.Expected, c.Found))
	}
	return fmt.Sprintf("%v: %s", e.Result.Verdict, strings.Join(text, "; "))
}

// verdict sums up: a broken signature is the worst, then a mismatch, which no
// certificate would mend, then collateral that could not be had. A check that
// neither passed nor was left out has failed, and without a signature that
// passed there is no success.
func verdict(checks []Check, authenticityOnly bool) Verdict {
	failed, signed := map[Class]bool{}, false
	for _, c := range checks {
		if c.Outcome != Pass && c.Outcome != Skipped {
			failed[c.Code.info().Class] = true
		}
		signed = signed || c.Code == CodeSignature && c.Outcome == Pass
	}
	switch {
	case failed[ClassFormat]:
		return Malformed
	case failed[ClassSignature]:
		return Forged
	case failed[ClassPolicy]:
		return Mismatch
	case failed[ClassCollateral] || !signed:
		return Unavailable
	case authenticityOnly:
		return Authentic
	default:
		return Verified
	}
}

// err returns nil for a success alone.
func (r Result) err() error {
	if r.Verdict == Verified || r.Verdict == Authentic && r.AuthenticityOnly {
		return nil
	}
	return &Refusal{r}
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
