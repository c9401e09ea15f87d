package release

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/measure"
)

// RevocationType names the format of a revocation, with its version.
const RevocationType = "https://github.com/kraudcloud/kattest/revocation/v1"

// Bounds of a revocation.
const (
	maxRevocation = 1 << 20 // bytes
	maxRevoked    = 8192    // releases
)

// revocationSubject is the name of the statement's one subject, the revocation's
// canonical JSON as a file: in-toto wants one, and cosign checks it.
const revocationSubject = "revocation.json"

// Revocation says which of a publisher's releases no longer hold. Its signer
// speaks of no releases but its own.
type Revocation struct {
	// Until is how long the revocation may be relied on, to the second: whoever
	// withholds a newer one succeeds no longer than that.
	Until time.Time `json:"until"`
	// BelowSerial revokes every release with a smaller serial, those that are not
	// numbered included.
	BelowSerial uint64 `json:"belowSerial"`
	// Releases are single ones, by the SHA-256 of their statements.
	Releases []measure.Hash `json:"releases,omitempty"`
}

// Revokes says why the release with that statement is revoked, "" where it is not.
func (v Revocation) Revokes(r Release, statement []byte) string {
	switch digest := measure.Hash(sha256.Sum256(statement)); {
	case r.Serial < v.BelowSerial:
		return fmt.Sprintf("serial %d is below %d", r.Serial, v.BelowSerial)
	case slices.Contains(v.Releases, digest):
		return fmt.Sprintf("its statement, SHA-256 %v, is on the list", digest)
	}
	return ""
}

// Check reports everything that is wrong with the revocation's form, joined.
func (v Revocation) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if y := v.Until.Year(); v.Until.IsZero() || v.Until.Nanosecond() != 0 || y < 0 || y > 9999 {
		bad("until: %v is no time to the second", v.Until)
	}
	if v.BelowSerial > MaxSerial {
		bad("belowSerial: %d, more than %d", v.BelowSerial, uint64(MaxSerial))
	}
	if n := len(v.Releases); n > maxRevoked {
		bad("releases: %d, more than %d", n, maxRevoked)
	}
	if v.BelowSerial == 0 && len(v.Releases) == 0 {
		bad("belowSerial, releases: nothing is revoked")
	}
	return errors.Join(errs...)
}

// revocationStatement is an in-toto statement whose predicate is a revocation.
type revocationStatement struct {
	Type          string     `json:"_type"`
	Subject       []subject  `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Revocation `json:"predicate"`
}

// Statement returns the in-toto statement that is signed, canonical JSON (RFC 8785).
func (v Revocation) Statement() ([]byte, error) {
	v.Until = v.Until.UTC()
	if err := v.Check(); err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	s, err := v.subject()
	if err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	b, err := strictjson.Canonical(revocationStatement{StatementType, []subject{s}, RevocationType, v})
	if err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	return b, nil
}

func (v Revocation) subject() (subject, error) {
	b, err := strictjson.Canonical(v)
	if err != nil {
		return subject{}, err
	}
	return subject{revocationSubject, subjectDigest{sha256.Sum256(b)}}, nil
}

// ParseRevocation reads the statement of a revocation and checks
// its form; nothing vouches for it.
func ParseRevocation(data []byte) (Revocation, error) {
	v, err := parseRevocation(data)
	if err != nil {
		return Revocation{}, fmt.Errorf("revocation: statement: %w", err)
	}
	return v, nil
}

func parseRevocation(data []byte) (Revocation, error) {
	if len(data) > maxRevocation {
		return Revocation{}, fmt.Errorf("%d bytes, more than %d", len(data), maxRevocation)
	}
	var s revocationStatement
	if err := strictjson.Decode(data, &s); err != nil {
		return Revocation{}, clearer(data, RevocationType, err)
	}
	errs := checkTypes(s.Type, s.PredicateType, RevocationType)
	if err := s.Predicate.Check(); err != nil {
		errs = append(errs, fmt.Errorf("predicate: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return Revocation{}, err
	}
	want, err := s.Predicate.subject()
	if err != nil {
		return Revocation{}, err
	}
	if len(s.Subject) != 1 || s.Subject[0] != want {
		return Revocation{}, fmt.Errorf("subject: not the predicate's canonical form, %s with SHA-256 %v", want.Name, want.Digest.SHA256)
	}
	return s.Predicate, nil
}

// SignRevocation returns the revocation in a bundle, as Sign does a release.
func SignRevocation(v Revocation, key crypto.Signer) ([]byte, error) {
	payload, err := v.Statement()
	if err != nil {
		return nil, err
	}
	out, err := signBundle(payload, key)
	if err != nil {
		return nil, fmt.Errorf("signing the revocation: %w", err)
	}
	return out, nil
}
