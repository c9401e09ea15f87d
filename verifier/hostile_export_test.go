package verifier

import "crypto/x509"

// Pin puts roots of the tests' own in the place of AMD's, so that what stands
// below them is judged as what stands below AMD's is.
func (v *Verifier) Pin(p Product, key SigningKey, ask, ark *x509.Certificate) {
	v.cache.mu.Lock()
	defer v.cache.mu.Unlock()
	if v.cache.roots == nil {
		v.cache.roots = map[rootKey]chain{}
	}
	v.cache.roots[rootKey{p, key}] = chain{ask, ark}
}

// Pinned returns the roots that are compiled in.
func Pinned(p Product, key SigningKey) (ask, ark *x509.Certificate, err error) {
	c, err := pinned(p, key)
	return c.ask, c.ark, err
}
