package verifier

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-sev-guest/verify/trust"
)

// chain is what stands above a VCEK or VLEK.
type chain struct{ ask, ark *x509.Certificate }

// pinned returns the ASK (for a VLEK the ASVK) and the ARK of a product, which
// are compiled in, as go-sev-guest has them. A test checks their signatures.
func pinned(p Product, key SigningKey) (chain, error) {
	file := map[Product]map[SigningKey][]byte{
		Milan: {VCEK: trust.AskArkMilanVcekBytes, VLEK: trust.AskArkMilanVlekBytes},
		Genoa: {VCEK: trust.AskArkGenoaVcekBytes, VLEK: trust.AskArkGenoaVlekBytes},
		Turin: {VCEK: trust.AskArkTurinVcekBytes, VLEK: trust.AskArkTurinVlekBytes},
	}[p][key]
	certs, err := parsePEM(file)
	if err != nil {
		return chain{}, fmt.Errorf("AMD's roots of %v for a %v: %w", p, key, err)
	}
	if len(certs) != 2 {
		return chain{}, fmt.Errorf("AMD's roots of %v for a %v: %d certificates, want 2", p, key, len(certs))
	}
	return chain{certs[0], certs[1]}, nil
}

// maxOffered is the number of ASKs of a table that are tried.
const maxOffered = 4

// chainOf finds the ASK that signed e, and that the ARK signed. With an error
// the chain is the one that was expected.
func (v *verification) chainOf(ctx context.Context, e *endorsement) (chain, error) {
	if s := v.policy.Simulated; s != nil {
		c := chain{s.ASK, s.ARK}
		if known, ok := v.cache.chainOf(e, s.ARK); ok && known.ask.Equal(s.ASK) {
			return known, nil
		}
		if err := errors.Join(checkLink(c.ark, c.ark), checkUnder(e, c)); err != nil {
			return c, err
		}
		v.cache.keep(e, c)
		return c, nil
	}
	home, err := v.cache.pinned(e.product, e.key)
	if err != nil {
		return chain{}, err
	}
	if known, ok := v.cache.chainOf(e, home.ark); ok {
		return known, nil
	}
	err = checkLink(e.cert, home.ask) // pinned: what is above it need not be checked
	if err == nil {
		v.cache.keep(e, home)
		return home, nil
	}
	if e.simulated {
		return home, err
	}
	if !bytes.Equal(e.cert.RawIssuer, home.ask.RawSubject) {
		return home, err // another key of the ARK's, such as an ASVK, certifies no VCEK
	}
	for _, ask := range v.offeredASKs(ctx, e) {
		c := chain{ask, home.ark}
		if checkUnder(e, c) == nil {
			v.cache.keep(e, c)
			return c, nil
		}
	}
	return home, err
}

// checkUnder checks that c.ark signed c.ask, and that e.
func checkUnder(e *endorsement, c chain) error {
	return errors.Join(checkLink(c.ask, c.ark), checkLink(e.cert, c.ask))
}

// offeredASKs are those of the caller and of the table that bear the name of e's
// issuer, and the Source's where there are none.
func (v *verification) offeredASKs(ctx context.Context, e *endorsement) []*x509.Certificate {
	var asks []*x509.Certificate
	offer := func(c *x509.Certificate) {
		if len(asks) < maxOffered && bytes.Equal(c.RawSubject, e.cert.RawIssuer) {
			asks = append(asks, c)
		}
	}
	for _, c := range v.policy.Chain {
		offer(c)
	}
	for _, entry := range v.in.Certificates.Entries {
		if entry.Name() != "ASK" || len(asks) == maxOffered {
			continue
		}
		if c, err := x509.ParseCertificate(entry.Data); err == nil {
			offer(c)
		}
	}
	if len(asks) == 0 && v.source != nil {
		if pem, err := v.source.Chain(ctx, e.product, e.key); err == nil {
			certs, _ := parsePEM(pem)
			for _, c := range certs {
				offer(c)
			}
		}
	}
	return asks
}

// checkLink checks that parent signed child, as AMD does: RSASSA-PSS with
// SHA-384 under a key of 4096 bits, names and basic constraints that fit,
// nothing critical unknown.
func checkLink(child, parent *x509.Certificate) error {
	name := child.Subject.CommonName
	if key, ok := parent.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 4096 {
		return fmt.Errorf("%q: its key is not RSA of 4096 bits", parent.Subject.CommonName)
	}
	if !parent.IsCA {
		return fmt.Errorf("%q: its basic constraints do not say CA", parent.Subject.CommonName)
	}
	if child.IsCA && parent.MaxPathLenZero {
		return fmt.Errorf("%q: its basic constraints let no authority stand below it", parent.Subject.CommonName)
	}
	if child.SignatureAlgorithm != x509.SHA384WithRSAPSS {
		return fmt.Errorf("%q: signed with %v, want RSASSA-PSS with SHA-384", name, child.SignatureAlgorithm)
	}
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return fmt.Errorf("%q: its issuer is %.80q, not %q", name, child.Issuer.CommonName, parent.Subject.CommonName)
	}
	if len(child.UnhandledCriticalExtensions) != 0 {
		return fmt.Errorf("%q: unknown critical extension %v", name, child.UnhandledCriticalExtensions[0])
	}
	if err := child.CheckSignatureFrom(parent); err != nil {
		return fmt.Errorf("%q is not signed by %q: %w", name, parent.Subject.CommonName, err)
	}
	return nil
}

func validAt(t time.Time, certs ...*x509.Certificate) error {
	var errs []error
	for _, c := range certs {
		if t.Before(c.NotBefore) || t.After(c.NotAfter) {
			errs = append(errs, fmt.Errorf("%q is valid from %s to %s", c.Subject.CommonName,
				c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	return errors.Join(errs...)
}

func validity(c *x509.Certificate) string {
	return c.NotBefore.UTC().Format(time.RFC3339) + " to " + c.NotAfter.UTC().Format(time.RFC3339)
}

// maxCached bounds what a cache holds of each kind; a full one starts anew.
const maxCached = 4096

// cache holds certificates whose chain was checked and lists whose signature
// was, by the SHA-256 of their bytes. Dates and revocation are judged each time.
type cache struct {
	mu     sync.RWMutex
	chains map[[32]byte]checked
	lists  map[[32]byte]signedList
	roots  map[rootKey]chain
}

type checked struct {
	endorsement *endorsement
	chain       chain
}

type signedList struct {
	list *x509.RevocationList
	by   *x509.Certificate
}

type rootKey struct {
	product Product
	key     SigningKey
}

// endorsement parses a certificate, unless it is known.
func (c *cache) endorsement(der []byte) (*endorsement, error) {
	id := sha256.Sum256(der)
	c.mu.RLock()
	known, ok := c.chains[id]
	c.mu.RUnlock()
	if ok {
		return known.endorsement, nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	e, err := newEndorsement(cert)
	if err != nil {
		return nil, err
	}
	e.id = id
	return e, nil
}

// chainOf returns the chain of e, if it was checked under that ARK.
func (c *cache) chainOf(e *endorsement, ark *x509.Certificate) (chain, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	known, ok := c.chains[e.id]
	return known.chain, ok && known.chain.ark.Equal(ark)
}

func (c *cache) keep(e *endorsement, under chain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chains == nil || len(c.chains) >= maxCached {
		c.chains = map[[32]byte]checked{}
	}
	c.chains[e.id] = checked{e, under}
}

func (c *cache) pinned(p Product, key SigningKey) (chain, error) {
	id := rootKey{p, key}
	c.mu.RLock()
	known, ok := c.roots[id]
	c.mu.RUnlock()
	if ok {
		return known, nil
	}
	fresh, err := pinned(p, key)
	if err != nil {
		return chain{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots == nil {
		c.roots = map[rootKey]chain{}
	}
	c.roots[id] = fresh
	return fresh, nil
}

// list parses a revocation list, unless it is known.
func (c *cache) list(data []byte) (*x509.RevocationList, error) {
	c.mu.RLock()
	known, ok := c.lists[sha256.Sum256(data)]
	c.mu.RUnlock()
	if ok {
		return known.list, nil
	}
	return ParseCRL(data)
}

// checkList checks that ark signed the list, unless that is known.
func (c *cache) checkList(list *x509.RevocationList, ark *x509.Certificate) error {
	id := sha256.Sum256(list.Raw)
	c.mu.RLock()
	known, ok := c.lists[id]
	c.mu.RUnlock()
	if ok && known.by.Equal(ark) {
		return nil
	}
	if err := checkList(list, ark); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lists == nil || len(c.lists) >= maxCached {
		c.lists = map[[32]byte]signedList{}
	}
	c.lists[id] = signedList{list, ark}
	return nil
}
