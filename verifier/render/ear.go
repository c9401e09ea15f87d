package render

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kraudcloud/kattest/verifier"
)

// EARProfile is the profile of the results that EAR writes.
// Source: draft-ietf-rats-ear-04, section 3.
const EARProfile = "tag:ietf.org,2026:rats/ear#04"

// Issuer is who signs an EAR.
type Issuer struct {
	// Key is ECDSA on P-256 (ES256), P-384 (ES384) or P-521 (ES512), Ed25519
	// (EdDSA), or RSA (PS256).
	Key crypto.Signer
	// Developer and Build name the verifier's software.
	Developer, Build string
	// PolicyID names the policy by which was judged; it may be empty.
	PolicyID string
	// IssuedAt is the time of the signature.
	IssuedAt time.Time
}

// Claim is a value of AR4SI's trustworthiness vector: 0 says nothing, 2 to 31 are
// affirming, 32 to 95 a warning, 96 to 127 contraindicated.
// Source: draft-ietf-rats-ar4si, section 2.3.
type Claim int8

// The values that are used.
const (
	claimNone       Claim = 0
	claimAffirmed   Claim = 2
	claimBoot       Claim = 3 // executables: approved, as they were at boot
	claimWarning    Claim = 32
	claimUnknownRun Claim = 33 // executables: not recognised
	claimRefused    Claim = 96
	claimStranger   Claim = 97 // hardware: not recognised
	claimNotSigned  Claim = 99 // the evidence's cryptographic validation failed
)

// ear is an EAR's claims set.
// Source: draft-ietf-rats-ear-04, section 3.
type ear struct {
	Profile  string               `json:"eat_profile"`
	IssuedAt int64                `json:"iat"`
	Verifier verifierID           `json:"ear_verifier_id"`
	Status   string               `json:"ear_status"`
	Submods  map[string]appraisal `json:"submods"`
}

type verifierID struct {
	Developer string `json:"developer"`
	Build     string `json:"build"`
}

// appraisal is that of one attester.
type appraisal struct {
	Status         string           `json:"ear_status"`
	Vector         map[string]Claim `json:"ear_trustworthiness_vector,omitempty"`
	PolicyIDs      []string         `json:"ear_appraisal_policy_ids,omitempty"`
	AttesterClaims *verifier.Claims `json:"ear_attester_claims,omitempty"`
	VerifierClaims verifierClaims   `json:"ear_verifier_claims"`
}

type verifierClaims struct {
	Result verifier.Result `json:"kattest.result"`
}

// submod is the attester's label.
const submod = "AMD-SEV-SNP"

// EAR writes each result as an EAT attestation result: a JWT on a line of its own.
func EAR(w io.Writer, results []verifier.Result, by Issuer) error {
	algorithm, err := algorithmOf(by.Key)
	if err != nil {
		return fmt.Errorf("EAR: %w", err)
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: by.Key}, options)
	if err != nil {
		return fmt.Errorf("EAR: %w", err)
	}
	for _, r := range results {
		payload, err := json.Marshal(newEAR(r, by))
		if err != nil {
			return fmt.Errorf("EAR: %w", err)
		}
		signed, err := signer.Sign(payload)
		if err != nil {
			return fmt.Errorf("EAR: signing: %w", err)
		}
		token, err := signed.CompactSerialize()
		if err != nil {
			return fmt.Errorf("EAR: %w", err)
		}
		if _, err := fmt.Fprintln(w, token); err != nil {
			return err
		}
	}
	return nil
}

func algorithmOf(key crypto.Signer) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return jose.ES256, nil
		case 384:
			return jose.ES384, nil
		case 521:
			return jose.ES512, nil
		}
	case ed25519.PrivateKey:
		return jose.EdDSA, nil
	case *rsa.PrivateKey:
		return jose.PS256, nil
	}
	return "", fmt.Errorf("a key of type %T, want ECDSA, Ed25519 or RSA", key)
}

func newEAR(r verifier.Result, by Issuer) ear {
	a := appraisal{VerifierClaims: verifierClaims{r}, AttesterClaims: r.Claims, Vector: Vector(r)}
	a.Status = status(r, a.Vector)
	if by.PolicyID != "" {
		a.PolicyIDs = []string{by.PolicyID}
	}
	return ear{
		Profile: EARProfile, IssuedAt: by.IssuedAt.Unix(), Status: a.Status,
		Verifier: verifierID{by.Developer, by.Build}, Submods: map[string]appraisal{submod: a},
	}
}

// categories are those of the vector about which a report says something, and the
// checks that each goes by: their codes, or the beginnings of them before a dot.
// docs/spec/ear.md gives the same.
var categories = []struct {
	name                     string
	checks                   []string
	pass, skipped, otherwise Claim
}{
	{"instance-identity", []string{"certificate", "certificate.", "signature", "chip", "csp-id"}, claimAffirmed, claimWarning, claimRefused},
	{"hardware", []string{"product", "platform", "tcb.", "firmware", "mitigation."}, claimAffirmed, claimWarning, claimRefused},
	{"executables", []string{"measurement", "tpm."}, claimBoot, claimUnknownRun, claimRefused},
	{"configuration", []string{"host-data", "id-block.", "vmpl", "policy.bits", "policy.abi"}, claimAffirmed, claimWarning, claimRefused},
	{"runtime-opaque", []string{"policy.debug", "policy.migration", "report-id-ma"}, claimAffirmed, claimWarning, claimRefused},
}

// Vector maps a result to AR4SI's trustworthiness vector. Where the signature does
// not hold, or the input is malformed, nothing that the report says counts: every
// category has failed. What could not be judged is not claimed.
func Vector(r verifier.Result) map[string]Claim {
	vector := map[string]Claim{}
	for _, category := range categories {
		switch r.Verdict {
		case verifier.Forged, verifier.Malformed:
			vector[category.name] = claimNotSigned
		case verifier.Unavailable:
			vector[category.name] = claimNone
		default:
			vector[category.name] = claimNone
			for _, c := range r.Checks {
				if !covers(category.checks, c.Code) {
					continue
				}
				claim := category.otherwise
				switch c.Outcome {
				case verifier.Pass:
					claim = category.pass
				case verifier.Skipped:
					claim = category.skipped
				}
				vector[category.name] = max(vector[category.name], claim)
			}
		}
	}
	if r.Simulated && r.Verdict != verifier.Unavailable {
		vector["hardware"] = max(vector["hardware"], claimStranger)
	}
	return vector
}

func covers(checks []string, code verifier.Code) bool {
	for _, c := range checks {
		if c == string(code) || strings.HasSuffix(c, ".") && strings.HasPrefix(string(code), c) {
			return true
		}
	}
	return false
}

// status is the worst of the vector, of the checks that no category covers, such as
// freshness, and of what was not judged at all.
func status(r verifier.Result, vector map[string]Claim) string {
	worst := claimAffirmed
	for _, claim := range vector {
		if claim == claimNone {
			claim = claimWarning // not judged
		}
		worst = max(worst, claim)
	}
	for _, c := range r.Checks {
		switch c.Outcome {
		case verifier.Pass:
		case verifier.Skipped:
			worst = max(worst, claimWarning)
		default:
			worst = max(worst, claimRefused)
		}
	}
	switch {
	case r.Verdict == verifier.Unavailable:
		return "none"
	case r.Verdict != verifier.Verified && r.Verdict != verifier.Authentic || worst >= claimRefused:
		return "contraindicated"
	case worst >= claimWarning:
		return "warning"
	default:
		return "affirming"
	}
}
