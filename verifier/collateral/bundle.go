package collateral

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/verifier"
)

// MediaType names this version of a bundle's format.
const MediaType = "application/vnd.kattest.collateral.v1+json"

// Bounds of a bundle.
const (
	MaxBundle = 64 << 20 // bytes
	maxVCEKs  = 32 << 10
	maxOthers = 64 // chains, and lists
)

// Bundle is collateral in one file, for judging without a network. The zero value
// is empty. It is safe for concurrent use while nothing is added.
type Bundle struct {
	vceks  map[string][]byte // DER, by the service's path
	chains map[string][]byte // PEM, the same
	crls   map[verifier.Product][]byte
}

// file is a bundle as it is written. Its members are sorted.
type file struct {
	MediaType string   `json:"mediaType"`
	Chains    []string `json:"chains"` // ASK or ASVK, then ARK, in PEM
	CRLs      [][]byte `json:"crls"`   // DER
	VCEKs     [][]byte `json:"vceks"`  // DER
}

// ParseBundle reads a bundle.
func ParseBundle(data []byte) (*Bundle, error) {
	if len(data) > MaxBundle {
		return nil, fmt.Errorf("collateral: %d bytes, more than %d", len(data), MaxBundle)
	}
	var f file
	if err := strictjson.Decode(data, &f); err != nil {
		return nil, fmt.Errorf("collateral: %w", err)
	}
	switch {
	case f.MediaType != MediaType:
		return nil, fmt.Errorf("collateral: mediaType: %.100q, want %q", f.MediaType, MediaType)
	case len(f.Chains) > maxOthers || len(f.CRLs) > maxOthers || len(f.VCEKs) > maxVCEKs:
		return nil, fmt.Errorf("collateral: %d chains, %d lists, %d VCEKs: at most %d, %d and %d", len(f.Chains), len(f.CRLs), len(f.VCEKs), maxOthers, maxOthers, maxVCEKs)
	}
	var b Bundle
	for i, pem := range f.Chains {
		if err := b.AddChain([]byte(pem)); err != nil {
			return nil, fmt.Errorf("collateral: chains[%d]: %w", i, err)
		}
	}
	for i, der := range f.CRLs {
		if err := b.AddCRL(der); err != nil {
			return nil, fmt.Errorf("collateral: crls[%d]: %w", i, err)
		}
	}
	for i, der := range f.VCEKs {
		if err := b.AddVCEK(der); err != nil {
			return nil, fmt.Errorf("collateral: vceks[%d]: %w", i, err)
		}
	}
	if len(b.chains) != len(f.Chains) || len(b.crls) != len(f.CRLs) || len(b.vceks) != len(f.VCEKs) {
		return nil, errors.New("collateral: something stands twice")
	}
	return &b, nil
}

// Open reads a bundle, or a folder of bundles, chains and lists in PEM or DER, and
// VCEKs' certificates in DER. Anything else in the folder is an error; it is not
// searched deeper.
func Open(path string) (*Bundle, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return openFile(path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var all Bundle
	for _, entry := range entries {
		one, err := openFile(filepath.Join(path, entry.Name()))
		if err != nil {
			return nil, err
		}
		all.merge(one)
	}
	return &all, nil
}

func openFile(name string) (*Bundle, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxBundle {
		return nil, &fs.PathError{Op: "collateral", Path: name, Err: fmt.Errorf("not a file of at most %d bytes", MaxBundle)}
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) > 0 && text[0] == '{' {
		b, err := ParseBundle(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return b, nil
	}
	var b Bundle
	if b.AddVCEK(data) != nil && b.AddCRL(data) != nil && b.AddChain(data) != nil {
		return nil, fmt.Errorf("%s: neither a bundle, nor a VCEK's certificate in DER, nor a chain, nor a revocation list", name)
	}
	return &b, nil
}

// AddVCEK adds the certificate, in DER, of a VCEK.
func (b *Bundle) AddVCEK(der []byte) error {
	e, err := verifier.ParseEndorsement(der)
	if err != nil {
		return err
	}
	if e.Key != verifier.VCEK || e.Simulated {
		return errors.New("not a VCEK's certificate")
	}
	if b.vceks == nil {
		b.vceks = map[string][]byte{}
	}
	b.vceks[vcekPath(e.Product, e.HWID, e.TCB)] = der
	return nil
}

// AddChain adds an ASK or ASVK and its ARK, in PEM.
func (b *Bundle) AddChain(pem []byte) error {
	certs, err := verifier.ParseChain(pem)
	if err != nil {
		return err
	}
	if len(certs) != 2 {
		return fmt.Errorf("%d certificates, want ASK or ASVK, then ARK", len(certs))
	}
	p, key, err := chainOf(certs)
	if err != nil {
		return err
	}
	if b.chains == nil {
		b.chains = map[string][]byte{}
	}
	b.chains[path(p, key)] = pem
	return nil
}

// chainOf tells by the names whose chain it is.
func chainOf(certs []*x509.Certificate) (verifier.Product, verifier.SigningKey, error) {
	ask, ark := certs[0].Subject.CommonName, certs[1].Subject.CommonName
	for _, p := range verifier.Products() {
		if ark != "ARK-"+p.String() {
			continue
		}
		switch ask {
		case "SEV-" + p.String():
			return p, verifier.VCEK, nil
		case "SEV-VLEK-" + p.String():
			return p, verifier.VLEK, nil
		}
	}
	return verifier.UnknownProduct, verifier.None, fmt.Errorf("%.80q under %.80q is no chain of AMD's", ask, ark)
}

// AddCRL adds a revocation list, in DER or PEM, of one of AMD's ARKs. Of two of
// one product's the newer is kept.
func (b *Bundle) AddCRL(data []byte) error {
	list, err := verifier.ParseCRL(data)
	if err != nil {
		return err
	}
	name, ok := strings.CutPrefix(list.Issuer.CommonName, "ARK-")
	p, err := verifier.ParseProduct(name)
	if !ok || err != nil {
		return fmt.Errorf("revocation list of %.80q, which is no ARK of AMD's", list.Issuer.CommonName)
	}
	if b.crls == nil {
		b.crls = map[verifier.Product][]byte{}
	}
	if known, ok := b.crls[p]; ok {
		if older, err := verifier.ParseCRL(known); err == nil && older.ThisUpdate.After(list.ThisUpdate) {
			return nil
		}
	}
	b.crls[p] = list.Raw
	return nil
}

func (b *Bundle) merge(other *Bundle) {
	for _, der := range other.vceks {
		_ = b.AddVCEK(der) // was added before
	}
	for _, pem := range other.chains {
		_ = b.AddChain(pem)
	}
	for _, der := range other.crls {
		_ = b.AddCRL(der)
	}
}

// Marshal writes the bundle: the same bytes for the same collateral.
func (b *Bundle) Marshal() ([]byte, error) {
	f := file{MediaType: MediaType, Chains: []string{}, CRLs: [][]byte{}, VCEKs: sorted(b.vceks)}
	for _, pem := range sorted(b.chains) {
		f.Chains = append(f.Chains, string(pem))
	}
	for _, p := range verifier.Products() {
		if der, ok := b.crls[p]; ok {
			f.CRLs = append(f.CRLs, der)
		}
	}
	data, err := json.MarshalIndent(f, "", "  ")
	return append(data, '\n'), err
}

func sorted(m map[string][]byte) [][]byte {
	all := make([][]byte, 0, len(m))
	for _, data := range m {
		all = append(all, data)
	}
	slices.SortFunc(all, bytes.Compare)
	return all
}

// VCEK returns a VCEK's certificate.
func (b *Bundle) VCEK(_ context.Context, p verifier.Product, hwid []byte, tcb verifier.TCB) ([]byte, error) {
	return find(b.vceks, vcekPath(p, hwid, tcb))
}

// Chain returns ASK, or ASVK, and ARK.
func (b *Bundle) Chain(_ context.Context, p verifier.Product, key verifier.SigningKey) ([]byte, error) {
	return find(b.chains, path(p, key))
}

// CRL returns the ARK's revocation list, which is one for both kinds of keys.
func (b *Bundle) CRL(_ context.Context, p verifier.Product, _ verifier.SigningKey) ([]byte, error) {
	return find(b.crls, p)
}

func find[K comparable](m map[K][]byte, key K) ([]byte, error) {
	if data, ok := m[key]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("%v: not in the bundle: %w", key, verifier.ErrNotFound)
}

// Item describes a part of a bundle for people.
type Item struct {
	Kind    string // chain, revocation list or VCEK
	Product verifier.Product
	What    string
	Until   time.Time // its last day
}

// Items returns what is in the bundle, sorted.
func (b *Bundle) Items() []Item {
	var all []Item
	for _, pem := range sorted(b.chains) {
		if certs, err := verifier.ParseChain(pem); err == nil { // was parsed before
			p, _, _ := chainOf(certs)
			all = append(all, Item{"chain", p, certs[0].Subject.CommonName + ", " + certs[1].Subject.CommonName, certs[0].NotAfter})
		}
	}
	for _, p := range verifier.Products() {
		if list, err := verifier.ParseCRL(b.crls[p]); err == nil {
			all = append(all, Item{"revocation list", p, fmt.Sprintf("%s, %d revoked", list.Issuer.CommonName, len(list.RevokedCertificateEntries)), list.NextUpdate})
		}
	}
	for _, der := range sorted(b.vceks) {
		e, errE := verifier.ParseEndorsement(der)
		cert, errC := x509.ParseCertificate(der)
		if errE == nil && errC == nil {
			all = append(all, Item{"VCEK", e.Product, fmt.Sprintf("chip %x, %v", e.HWID, e.TCB), cert.NotAfter})
		}
	}
	return all
}
