package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/measure"
)

// Names of the formats, with their versions.
const (
	PredicateType = "https://github.com/kraudcloud/kattest/release/v3"
	StatementType = "https://in-toto.io/Statement/v1"
	PayloadType   = "application/vnd.in-toto+json"
)

// maxStatement bounds a statement, in bytes.
const maxStatement = 4 << 20

// statement is an in-toto statement whose predicate is a release.
// Source: in-toto attestation framework, spec/v1/statement.md.
type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     Release   `json:"predicate"`
}

// subject is a resource descriptor, of which a release uses name and SHA-256.
type subject struct {
	Name   string        `json:"name"`
	Digest subjectDigest `json:"digest"`
}

type subjectDigest struct {
	SHA256 measure.Hash `json:"sha256"`
}

// Statement returns the in-toto statement that is signed: canonical JSON
// (RFC 8785), the components as its subjects.
func (r Release) Statement() ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	b, err := strictjson.Canonical(statement{StatementType, r.subjects(), PredicateType, r})
	if err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	if len(b) > maxStatement {
		return nil, fmt.Errorf("release: statement of %d bytes, more than %d", len(b), maxStatement)
	}
	return b, nil
}

func (r Release) subjects() []subject {
	var subjects []subject
	for _, c := range r.sorted() {
		subjects = append(subjects, subject{c.Name, subjectDigest{c.SHA256}})
	}
	return subjects
}

// ParseStatement reads a statement and checks its form; nothing vouches for it.
// Unknown and duplicate members are errors, and so are subjects that are not the
// predicate's components.
func ParseStatement(data []byte) (Release, error) {
	r, err := parseStatement(data)
	if err != nil {
		return Release{}, fmt.Errorf("release: statement: %w", err)
	}
	return r, nil
}

func parseStatement(data []byte) (Release, error) {
	if len(data) > maxStatement {
		return Release{}, fmt.Errorf("%d bytes, more than %d", len(data), maxStatement)
	}
	var s statement
	if err := strictjson.Decode(data, &s); err != nil {
		return Release{}, clearer(data, PredicateType, err)
	}
	errs := checkTypes(s.Type, s.PredicateType, PredicateType)
	if err := s.Predicate.Check(); err != nil {
		errs = append(errs, fmt.Errorf("predicate: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return Release{}, err
	}
	if err := s.checkSubjects(); err != nil {
		return Release{}, err
	}
	return s.Predicate, nil
}

// older are the predicate types of releases that are read no more. Whoever has
// one has the publisher sign it anew: nothing says which of them is the newest.
var older = []string{
	"https://github.com/kraudcloud/kattest/release/v1",
	"https://github.com/kraudcloud/kattest/release/v2",
}

// checkTypes checks what a statement says that it is.
func checkTypes(statementType, predicateType, want string) []error {
	var errs []error
	if statementType != StatementType {
		errs = append(errs, fmt.Errorf("_type: %.100q, want %q", statementType, StatementType))
	}
	switch {
	case slices.Contains(older, predicateType):
		errs = append(errs, fmt.Errorf("predicateType: %s is an older format, without a serial: the publisher has to sign the release anew, as %s", predicateType, PredicateType))
	case predicateType != want:
		errs = append(errs, fmt.Errorf("predicateType: %.100q, want %q", predicateType, want))
	}
	return errs
}

// clearer returns, for a statement that cannot be read, that it is of another
// type, where it is, or else err.
func clearer(data []byte, want string, err error) error {
	var s struct {
		Type          string          `json:"_type"`
		Subject       json.RawMessage `json:"subject"`
		PredicateType string          `json:"predicateType"`
		Predicate     json.RawMessage `json:"predicate"`
	}
	if strictjson.Decode(data, &s) != nil {
		return err
	}
	if other := errors.Join(checkTypes(s.Type, s.PredicateType, want)...); other != nil {
		return other
	}
	return err
}

func (s statement) checkSubjects() error {
	want := s.Predicate.subjects()
	if len(s.Subject) != len(want) {
		return fmt.Errorf("subject: %d, but %d components", len(s.Subject), len(want))
	}
	for i, w := range want {
		if got := s.Subject[i]; got != w {
			return fmt.Errorf("subject[%d]: %.80q %v, the component is %q %v", i, got.Name, got.Digest.SHA256, w.Name, w.Digest.SHA256)
		}
	}
	return nil
}
