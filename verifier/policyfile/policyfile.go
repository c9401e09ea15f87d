// Package policyfile reads the file that says what is demanded of a report: the
// lasting part of a verifier.Policy, in YAML or JSON. What the file leaves out is
// as in the default, which is strict; docs/spec/policy.md documents every field.
//
// It judges nothing, fetches nothing and opens no files but by the function that
// it is given. It does not check who signed the releases that a file names, nor
// that the levels of the default are still the newest ones that AMD asks for.
package policyfile

import (
	_ "embed"
	"errors"

	"github.com/kraudcloud/kattest/verifier"
)

// MaxSize is the largest policy file that Parse reads, in bytes.
const MaxSize = 64 << 10

// maxKey is the largest file of a public key, in bytes.
const maxKey = 64 << 10

// DefaultText is the default policy with its comments: what 'kattest policy init'
// writes and what Default returns.
//
//go:embed default.yaml
var DefaultText string

// File is a policy file, read.
type File struct {
	// Policy is what the file demands. What only a single question has, and
	// nothing that is kept, is unset: Time, Nonce, ReportData and the like.
	Policy verifier.Policy
	// Releases names the releases of which a report must be a launch.
	Releases Releases
}

// Releases names releases and whose they must be, as the flags of 'kattest
// verify' of the same names do. Names of files are as they stand in the file,
// relative to its folder.
type Releases struct {
	Bundles     []string // files
	Keys        []string // files, or NAME://KEY of a KMS
	Identity    string
	Issuer      string
	TrustedRoot string // file
	Log         string // file: trusted root of the log in which what a key signed must stand
	MinSerial   uint64
	Revocations []string   // files
	Revoked     [][32]byte // SHA-256 of statements
	VCPUs       int        // 0 is any number

	IdentityPattern, IssuerPattern string
}

// Given reports whether anything is named.
func (r Releases) Given() bool {
	return len(r.Bundles)+len(r.Keys)+len(r.Revocations)+len(r.Revoked) > 0 || r.MinSerial != 0 || r.VCPUs != 0 ||
		r.Identity+r.IdentityPattern+r.Issuer+r.IssuerPattern+r.TrustedRoot+r.Log != ""
}

// Default returns the default policy. It is what DefaultText reads as, as a test
// shows, without the time that reading takes.
func Default() File {
	minima := func(tcb verifier.TCB) verifier.ProductPolicy {
		return verifier.ProductPolicy{Reported: tcb, Committed: tcb, Launch: tcb}
	}
	return File{Policy: verifier.Policy{
		Products: map[verifier.Product]verifier.ProductPolicy{
			verifier.Milan: minima(verifier.TCB{SNP: 29, Microcode: 68}),
			verifier.Genoa: minima(verifier.TCB{SNP: 27, Microcode: 25}),
			verifier.Turin: minima(verifier.TCB{SNP: 4}),
		},
		RequiredPlatform: verifier.PlatformAliasCheck,
	}}
}

// Parse reads a policy file, YAML or JSON. What it leaves out is as in the
// default. read opens the keys that the file names; where it is nil, keys must
// be given by their digests. An error names the line and the field of everything
// that is wrong.
func Parse(data []byte, read func(name string) ([]byte, error)) (File, error) {
	return parse(data, Default(), read)
}

func parse(data []byte, base File, read func(string) ([]byte, error)) (File, error) {
	root, err := load(data)
	if err != nil {
		return File{}, err
	}
	d := &decoder{read: read}
	d.file(root, &base)
	if len(d.errs) > 0 {
		return File{}, errors.Join(d.errs...)
	}
	return base, nil
}
