package kattest

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/guest/evidence"
	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/collateral"
)

// collateralFlags say where certificates and revocation lists come from.
type collateralFlags struct {
	offline              bool
	bundles, crls, chain []string
	cache, kds           string
	revocation           string
}

func (f *collateralFlags) register(flags *pflag.FlagSet) {
	flags.BoolVar(&f.offline, "offline", false, "do not ask AMD's KDS for what is missing")
	flags.StringArrayVar(&f.bundles, "collateral", nil, "bundle of 'kattest collateral fetch', or a folder of certificates and lists; may be given more than once")
	flags.StringArrayVar(&f.crls, "crl", nil, "revocation list, DER or PEM, or a folder of them; may be given more than once")
	flags.StringArrayVar(&f.chain, "chain", nil, "certificates of ASKs or ASVKs, PEM, beside those that are compiled in; may be given more than once")
	flags.StringVar(&f.cache, "cache", "", "folder that keeps what was fetched (default kattest/collateral in the user's cache; - is none)")
	flags.StringVar(&f.revocation, "crl-rule", "", "what the lack of a revocation list in date means: required, if-available or off (default the policy's)")
	f.registerKDS(flags)
}

func (f *collateralFlags) registerKDS(flags *pflag.FlagSet) {
	flags.StringVar(&f.kds, "kds", collateral.AMD, "address of the Key Distribution Service")
}

func (f *collateralFlags) check() error {
	if u, err := url.Parse(f.kds); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("--kds: %q is no address such as %s", f.kds, collateral.AMD)
	}
	if f.revocation != "" {
		if _, err := verifier.ParseRevocation(f.revocation); err != nil {
			return fmt.Errorf("--crl-rule: %w", err)
		}
	}
	return nil
}

// source returns where to look for collateral: bundles, cache, KDS.
func (f *collateralFlags) source(stderr io.Writer) (verifier.Source, error) {
	var all collateral.Sources
	for _, name := range f.bundles {
		b, err := collateral.Open(name)
		if err != nil {
			return nil, fmt.Errorf("--collateral: %w", err)
		}
		all = append(all, b)
	}
	var kds verifier.Source
	if !f.offline {
		kds = collateral.NewKDS(f.kds)
	}
	dir, err := f.cacheDir()
	switch {
	case err != nil:
		return nil, err
	case dir != "":
		warn := func(err error) { fmt.Fprintf(stderr, "kattest: warning: %v\n", err) }
		kds = &collateral.Cache{Dir: dir, Next: kds, Warn: warn}
	}
	if kds != nil {
		all = append(all, kds)
	}
	return all, nil
}

// cacheDir returns the cache's folder, empty where there is none. Another service
// than AMD's has no place in the usual one.
func (f *collateralFlags) cacheDir() (string, error) {
	if f.cache == "-" || f.cache == "" && f.kds != collateral.AMD {
		return "", nil
	}
	if f.cache != "" {
		return f.cache, nil
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("--cache: %w", err)
	}
	return filepath.Join(user, "kattest", "collateral"), nil
}

// read adds lists and chains to a policy.
func (f *collateralFlags) read(p *verifier.Policy) error {
	if f.revocation != "" {
		var err error
		if p.Revocation, err = verifier.ParseRevocation(f.revocation); err != nil {
			return fmt.Errorf("--crl-rule: %w", err)
		}
	}
	for _, name := range f.crls {
		lists, err := readCRLs(name)
		if err != nil {
			return fmt.Errorf("--crl: %w", err)
		}
		p.CRLs = append(p.CRLs, lists...)
	}
	for _, name := range f.chain {
		data, err := cli.ReadFile(name, evidence.MaxCertificates)
		if err != nil {
			return fmt.Errorf("--chain: %w", err)
		}
		certs, err := verifier.ParseChain(data)
		if err != nil {
			return fmt.Errorf("--chain %s: %w", name, err)
		}
		p.Chain = append(p.Chain, certs...)
	}
	return nil
}

// readCRLs reads a list, or all of a folder, which holds nothing else.
func readCRLs(name string) ([]*x509.RevocationList, error) {
	names := []string{name}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			return nil, fmt.Errorf("%s: an empty folder", name)
		}
		names = nil
		for _, e := range entries {
			names = append(names, filepath.Join(name, e.Name()))
		}
	}
	var lists []*x509.RevocationList
	var errs []error
	for _, name := range names {
		data, err := cli.ReadFile(name, verifier.MaxCRL)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list, err := verifier.ParseCRL(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		lists = append(lists, list)
	}
	return lists, errors.Join(errs...)
}
