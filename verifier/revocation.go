package verifier

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// MaxCRL is the largest revocation list that ParseCRL reads, in bytes.
const MaxCRL = 1 << 20

// ParseCRL reads one revocation list, in DER or PEM. It does not check its
// signature.
func ParseCRL(data []byte) (*x509.RevocationList, error) {
	if len(data) > MaxCRL {
		return nil, fmt.Errorf("revocation list: %d bytes, more than %d", len(data), MaxCRL)
	}
	if trimmed := bytes.TrimSpace(data); bytes.HasPrefix(trimmed, []byte("-----BEGIN")) {
		block, rest := pem.Decode(trimmed)
		if block == nil || block.Type != crlBlock || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fmt.Errorf("revocation list: want one PEM block %q", crlBlock)
		}
		data = block.Bytes
	}
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	if n := len(data) - len(list.Raw); n != 0 { // which crypto/x509 lets pass
		return nil, fmt.Errorf("revocation list: %d bytes behind it", n)
	}
	return list, nil
}

const crlBlock = "X509 CRL"

// checkList checks that ark signed the list, as AMD does. A list that is not
// about all of its issuer's certificates is refused, and one of which an entry
// may be about another's. Source: RFC 5280, sections 5.2 and 5.3.
func checkList(list *x509.RevocationList, ark *x509.Certificate) error {
	if key, ok := ark.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 4096 {
		return fmt.Errorf("%q: its key is not RSA of 4096 bits", ark.Subject.CommonName)
	}
	if list.SignatureAlgorithm != x509.SHA384WithRSAPSS {
		return fmt.Errorf("signed with %v, want RSASSA-PSS with SHA-384", list.SignatureAlgorithm)
	}
	extensions := slices.Clone(list.Extensions)
	for _, entry := range list.RevokedCertificateEntries {
		extensions = append(extensions, entry.Extensions...)
	}
	for _, ext := range extensions {
		if ext.Critical {
			return fmt.Errorf("unknown critical extension %v", ext.Id)
		}
	}
	if err := list.CheckSignatureFrom(ark); err != nil {
		return fmt.Errorf("not signed by %q: %w", ark.Subject.CommonName, err)
	}
	return nil
}

// inDate judges a list's dates. Source: RFC 5280, sections 5.1.2.4 and 5.1.2.5.
func inDate(list *x509.RevocationList, t time.Time) error {
	if list.NextUpdate.IsZero() {
		return errors.New("has no nextUpdate")
	}
	if t.Before(list.ThisUpdate) {
		return fmt.Errorf("is of the future: thisUpdate is %s", list.ThisUpdate.UTC().Format(time.RFC3339))
	}
	if t.After(list.NextUpdate) {
		return fmt.Errorf("is stale: nextUpdate was %s", list.NextUpdate.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkRevocation looks for lists of the ARK, the caller's and then the
// Source's. What any of them names is refused, in date or not: nothing that was
// revoked is good again.
func (v *verification) checkRevocation(ctx context.Context, e *endorsement, c chain) error {
	if v.policy.Revocation == RevocationOff {
		v.skip(CodeCRL, "", "--crl-rule off: a key that AMD has revoked would do")
		return nil
	}
	search := listSearch{v: v, ark: c.ark, serials: []*big.Int{c.ask.SerialNumber, e.cert.SerialNumber}}
	lists := v.policy.CRLs
	if s := v.policy.Simulated; s != nil && s.CRL != nil {
		lists = append(lists[:len(lists):len(lists)], s.CRL)
	}
	for _, list := range lists {
		search.look(list)
	}
	if search.best == nil && v.source != nil && v.policy.Simulated == nil {
		if err := search.ask(ctx, e); err != nil {
			return err
		}
	}
	v.add(search.found())
	v.addRevocation(search, e)
	return nil
}

// listSearch is what is known of an ARK's revocation lists.
type listSearch struct {
	v       *verification
	ark     *x509.Certificate
	serials []*big.Int // looked for
	best    *x509.RevocationList
	signed  bool // some list, in date or not, could be looked into
	revoked string
	reasons []string // why lists do not do
}

func (s *listSearch) look(list *x509.RevocationList) {
	if !bytes.Equal(list.RawIssuer, s.ark.RawSubject) {
		return
	}
	if err := s.v.cache.checkList(list, s.ark); err != nil {
		s.reasons = append(s.reasons, fmt.Sprintf("one of %q: %v", list.Issuer.CommonName, err))
		return
	}
	s.signed = true
	for _, entry := range list.RevokedCertificateEntries {
		for _, serial := range s.serials {
			if entry.SerialNumber.Cmp(serial) == 0 {
				s.revoked = fmt.Sprintf("serial 0x%x, revoked at %s", serial, entry.RevocationTime.UTC().Format(time.RFC3339))
			}
		}
	}
	if err := inDate(list, s.v.policy.Time); err != nil {
		s.reasons = append(s.reasons, fmt.Sprintf("one of %q %v", list.Issuer.CommonName, err))
		return
	}
	if s.best == nil || list.ThisUpdate.After(s.best.ThisUpdate) {
		s.best = list
	}
}

func (s *listSearch) ask(ctx context.Context, e *endorsement) error {
	data, err := s.v.source.CRL(ctx, e.product, e.key)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.reasons = append(s.reasons, "asking for one failed: "+oneLine(err))
		return nil
	}
	list, err := s.v.cache.list(data)
	if err != nil {
		s.reasons = append(s.reasons, oneLine(err))
		return nil
	}
	s.look(list)
	return nil
}

// found is the check of whether there is a list in date.
func (s *listSearch) found() Check {
	check := Check{
		Code: CodeCRL, Outcome: Pass,
		Expected: fmt.Sprintf("a revocation list of %q in date at %s", s.ark.Subject.CommonName, s.v.policy.Time.UTC().Format(time.RFC3339)),
	}
	if s.best != nil {
		check.Found = fmt.Sprintf("%s to %s", s.best.ThisUpdate.UTC().Format(time.RFC3339), s.best.NextUpdate.UTC().Format(time.RFC3339))
		return check
	}
	check.Found, check.Reason = "none", strings.Join(append(s.reasons, "whether AMD has revoked the chain is not known"), "; ")
	check.Outcome, check.Hint = Fail, "without --offline it is fetched; or --crl FILE, or 'kattest collateral fetch'"
	if s.v.policy.Revocation == RevocationIfAvailable {
		check.Outcome, check.Hint = Skipped, ""
	}
	return check
}

// addRevocation adds what the lists say, if any could be looked into.
func (v *verification) addRevocation(s listSearch, e *endorsement) {
	check := Check{Code: CodeRevocation, Outcome: Pass, Expected: "on no list", Found: "on no list"}
	switch {
	case s.revoked != "":
		check.Outcome, check.Found = Fail, s.revoked
		check.Reason = fmt.Sprintf("the key that signed this, or the %v itself, was revoked by AMD", e.key)
	case !s.signed:
		return
	}
	v.add(check)
}
