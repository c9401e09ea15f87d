// Package simpsp is a simulated AMD Secure Processor: it signs attestation
// reports of the true format under a certificate chain of its own, made once
// for each machine. It serves for trying and testing where there is no
// SEV-SNP.
//
// Its reports prove nothing. It signs whatever measurement and host data its
// caller names, and anyone who reads its state can do so too. Every subject
// name in its chain says SIMULATED, and a verifier must refuse the chain unless
// it is told to trust it. The package does not run guests, and it does not
// check that a policy is one that AMD's firmware would accept.
package simpsp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Names of files in a PSP's folder.
const (
	ChainFile = "chain.pem" // ASK, ARK and the ARK's revocation list: what a verifier may be told to trust
	VCEKFile  = "vcek.pem"  // the VCEK's certificate
	KeyFile   = "vcek.key"  // the VCEK's private key, PKCS #8
)

// PSP is the simulated secure processor of one machine. It is safe for
// concurrent use.
type PSP struct {
	authority
	key  *ecdsa.PrivateKey
	vcek *x509.Certificate
	hwid [64]byte
}

// DefaultDir returns the folder that stands for this machine's processor:
// kattest/simpsp below $XDG_DATA_HOME or ~/.local/share.
func DefaultDir() (string, error) {
	data := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) { // XDG Base Directory 0.8: a relative path is to be ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the simulated PSP's folder: %w", err)
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "kattest", "simpsp"), nil
}

// Load returns the processor whose keys and certificates stand in dir. Where
// dir does not exist or is empty it makes a new one, which takes seconds; of
// several processes that do so at once one wins, and all get its keys. The
// folder has mode 0700, its files 0600. A folder that is damaged is an error
// and stays as it is.
func Load(dir string) (*PSP, error) {
	p, err := read(dir)
	if errors.Is(err, errEmpty) {
		if err = create(dir); err == nil {
			p, err = read(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("simulated PSP %s: %w", dir, err)
	}
	return p, nil
}

// Chain returns what stands above the VCEK, in PEM: the ASK, the ARK, and the
// ARK's revocation list.
func (p *PSP) Chain() []byte { return p.pem() }

// VCEK returns the VCEK's certificate, in DER.
func (p *PSP) VCEK() []byte { return append([]byte(nil), p.vcek.Raw...) }

var errEmpty = errors.New("nothing there")

func read(dir string) (*PSP, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, errEmpty
	}
	if err != nil {
		return nil, err
	}
	var p PSP
	keys, err := readPEM(dir, KeyFile, keyBlock)
	if err != nil {
		return nil, err
	}
	if p.key, err = parseKey(keys[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", KeyFile, err)
	}
	vcek, err := readPEM(dir, VCEKFile, certBlock)
	if err != nil {
		return nil, err
	}
	if p.vcek, err = x509.ParseCertificate(vcek[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", VCEKFile, err)
	}
	if p.authority, err = readAuthority(dir); err != nil {
		return nil, err
	}
	if p.hwid, err = p.check(); err != nil {
		return nil, err
	}
	return &p, nil
}

// checkTCB refuses a VCEK for other levels than those of the reports: it was made
// before they were raised.
func (p *PSP) checkTCB(hwid [64]byte) error {
	extensions, err := vcekExtensions(hwid)
	if err != nil {
		return err
	}
	for _, want := range extensions {
		if !slices.ContainsFunc(p.vcek.Extensions, func(e pkix.Extension) bool {
			return e.Id.Equal(want.Id) && bytes.Equal(e.Value, want.Value)
		}) {
			return fmt.Errorf("%s is for another TCB than this version's: delete the folder, and a new one is made", VCEKFile)
		}
	}
	return nil
}

// check makes sure that the files belong together, and returns the chip's id.
func (p *PSP) check() ([64]byte, error) {
	var hwid [64]byte
	public, ok := p.vcek.PublicKey.(*ecdsa.PublicKey)
	if !ok || !public.Equal(p.key.Public()) {
		return hwid, fmt.Errorf("%s is not the key of %s", KeyFile, VCEKFile)
	}
	for _, link := range []struct {
		name          string
		child, parent *x509.Certificate
	}{
		{VCEKFile, p.vcek, p.ask},
		{ChainFile, p.ask, p.ark},
		{ChainFile, p.ark, p.ark},
	} {
		if err := link.child.CheckSignatureFrom(link.parent); err != nil {
			return hwid, fmt.Errorf("%s: %s is not signed by %s: %w", link.name, link.child.Subject.CommonName, link.parent.Subject.CommonName, err)
		}
	}
	if err := p.crl.CheckSignatureFrom(p.ark); err != nil {
		return hwid, fmt.Errorf("%s: the revocation list is not signed by %s: %w", ChainFile, p.ark.Subject.CommonName, err)
	}
	for _, ext := range p.vcek.Extensions {
		if ext.Id.Equal(oidHWID) && len(ext.Value) == len(hwid) {
			return [64]byte(ext.Value), p.checkTCB([64]byte(ext.Value))
		}
	}
	return hwid, fmt.Errorf("%s: no HWID of %d bytes", VCEKFile, len(hwid))
}

// create makes a processor in a temporary folder and moves that into place, so
// that no one ever reads half of one.
func create(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(parent, ".simpsp-*") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	files, err := generate()
	if err != nil {
		return fmt.Errorf("making keys: %w", err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(temp, name), data, 0o600); err != nil {
			return err
		}
	}
	// rename(2) takes the place of an empty folder, os.Rename refuses to.
	err = syscall.Rename(temp, dir)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return nil // another process was first: its keys are the machine's
	}
	return err
}

func generate() (map[string][]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	var hwid [64]byte
	if _, err := rand.Read(hwid[:]); err != nil {
		return nil, err
	}
	vcek, above, err := newChain(&key.PublicKey, hwid)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		KeyFile:   encode(keyBlock, der),
		VCEKFile:  encode(certBlock, vcek.Raw),
		ChainFile: above.pem(),
	}, nil
}

// Types of PEM blocks.
const (
	keyBlock  = "PRIVATE KEY"
	certBlock = "CERTIFICATE"
	crlBlock  = "X509 CRL"
)

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func (a authority) pem() []byte {
	return append(append(encode(certBlock, a.ask.Raw), encode(certBlock, a.ark.Raw)...), encode(crlBlock, a.crl.Raw)...)
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P384() {
		return nil, errors.New("not an ECDSA key on P-384")
	}
	return ec, nil
}

func readAuthority(dir string) (authority, error) {
	var a authority
	blocks, err := readPEM(dir, ChainFile, certBlock, certBlock, crlBlock)
	if err != nil {
		return a, err
	}
	var errs [3]error
	a.ask, errs[0] = x509.ParseCertificate(blocks[0])
	a.ark, errs[1] = x509.ParseCertificate(blocks[1])
	a.crl, errs[2] = x509.ParseRevocationList(blocks[2])
	if err := errors.Join(errs[:]...); err != nil {
		return authority{}, fmt.Errorf("%s: %w", ChainFile, err)
	}
	return a, nil
}

// readPEM returns the blocks of a file, which must be of these types.
func readPEM(dir, name string, types ...string) ([][]byte, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	var blocks [][]byte
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if n := len(blocks); n < len(types) && block.Type != types[n] {
			return nil, fmt.Errorf("%s: PEM block %q, want %q", name, block.Type, types[n])
		}
		blocks, data = append(blocks, block.Bytes), rest
	}
	if len(blocks) != len(types) {
		return nil, fmt.Errorf("%s: %d PEM blocks, want %d; a folder of an older version is to be removed", name, len(blocks), len(types))
	}
	return blocks, nil
}
