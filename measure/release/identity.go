package release

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Identity is whom a certificate must name that signed a bundle without a
// long-lived key: the signer, and the OpenID Connect issuer that vouched for it.
// Either is given as it is, or as a pattern, and both are needed: a name means
// nothing without who gave it.
type Identity struct {
	Subject, SubjectPattern string
	Issuer, IssuerPattern   string
}

// Given says whether anything of an identity is given.
func (id Identity) Given() bool { return id != Identity{} }

// Check refuses an identity that lacks a half, has one twice, or has a pattern
// that demands nothing.
func (id Identity) Check() error {
	return errors.Join(
		checkMatch("identity", id.Subject, id.SubjectPattern),
		checkMatch("issuer", id.Issuer, id.IssuerPattern),
	)
}

func checkMatch(what, exact, pattern string) error {
	if (exact == "") == (pattern == "") {
		return fmt.Errorf("%s: want it or a pattern, and not both: an identity is a name and who gave it", what)
	}
	if pattern == "" {
		return nil
	}
	re, err := Anchor(pattern)
	if err != nil {
		return fmt.Errorf("%s pattern: %w", what, err)
	}
	if re.MatchString("") {
		return fmt.Errorf("%s pattern: %q matches even nothing, so that it demands nothing", what, pattern)
	}
	return nil
}

// Anchor compiles a pattern that must match from the first byte to the last, in
// the syntax of Go's regexp. What a dot matches is the pattern's own word: write
// \. for a dot.
func Anchor(pattern string) (*regexp.Regexp, error) {
	// Alone first: "a)|(b" would put itself between our anchors.
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

// Signer is who signed a bundle without a long-lived key.
type Signer struct {
	Subject string    `json:"subject"`
	Issuer  string    `json:"issuer"`
	Time    time.Time `json:"time"` // by a log's or time stamping authority's word
}

func (s Signer) String() string { return fmt.Sprintf("%s (%s)", s.Subject, s.Issuer) }

// KeylessMediaType names this version of Keyless.
const KeylessMediaType = "application/vnd.kattest.keyless.v1+json"

// Keyless is the answer of the program kattest-keyless about a bundle whose
// signature, certificate, log entry and time hold.
type Keyless struct {
	MediaType string `json:"mediaType"`
	Signer    Signer `json:"signer"`
	Statement []byte `json:"statement"` // base64
}
