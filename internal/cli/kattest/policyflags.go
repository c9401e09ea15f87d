package kattest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/verifier"
	"github.com/kraudcloud/kattest/verifier/policyfile"
)

// policyFlags name the policy on which the other flags stand.
type policyFlags struct {
	file   string
	base   policyfile.File // that was read
	digest string          // names its text in an EAR
}

func (f *policyFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.file, "policy", "", "policy file, YAML or JSON (default what 'kattest policy init' writes)")
}

// read returns the policy of the file, or the default. Names of files in it are
// made relative to the current folder.
func (f *policyFlags) read() (policyfile.File, error) {
	if f.file == "" {
		f.digest = policyID([]byte(policyfile.DefaultText))
		return policyfile.Default(), nil
	}
	data, err := cli.ReadFile(f.file, policyfile.MaxSize)
	if err != nil {
		return policyfile.File{}, cli.Usage(fmt.Errorf("--policy: %w", err), "")
	}
	f.digest = policyID(data)
	dir := filepath.Dir(f.file)
	policy, err := policyfile.Parse(data, func(name string) ([]byte, error) {
		return cli.ReadFile(beside(dir, name), 64<<10)
	})
	if err != nil {
		return policyfile.File{}, cli.Usage(fmt.Errorf("%s: %w", f.file, err), "docs/spec/policy.md has every field, and 'kattest policy init' writes the default")
	}
	r := &policy.Releases
	for _, names := range [][]string{r.Bundles, r.Keys, r.Revocations} {
		for i, name := range names {
			names[i] = beside(dir, name)
		}
	}
	for _, name := range []*string{&r.TrustedRoot, &r.Log} {
		if *name != "" {
			*name = beside(dir, *name)
		}
	}
	return policy, nil
}

// policyID names a policy file in an EAR.
func policyID(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// beside returns a name that a file in dir gives. A KMS reference is no file.
func beside(dir, name string) string {
	if filepath.IsAbs(name) || strings.Contains(name, "://") {
		return name
	}
	return filepath.Join(dir, name)
}

// releaseFlagNames are those that say something of releases. One of them puts the
// file's releases aside, or what it says could be of releases that it does not know.
var releaseFlagNames = []string{
	"release", "key", "identity", "identity-pattern", "issuer", "issuer-pattern", "trusted-root", "log",
	"min-release-serial", "revocation", "revoked-release", "vcpus",
}

// questions are the flags that replace what the file says of the same.
var questions = map[string][]string{
	"release": append([]string{"measurement", "without-measurement"}, releaseFlagNames...),
	"spec":    {"spec", "host-data", "without-host-data"},
}

// load reads the policy, and puts its releases among the flags where they say
// nothing of releases or measurements.
func (f *judgeFlags) load(flags *pflag.FlagSet) error {
	var err error
	if f.base, err = f.read(); err != nil {
		return err
	}
	if firstGiven(flags, questions["spec"]) != "" {
		f.base.Policy.HostData = nil
	}
	if firstGiven(flags, questions["release"]) != "" {
		f.base.Policy.References, f.base.Releases = nil, policyfile.Releases{}
		return nil
	}
	if f.authenticityOnly {
		return nil // no release is asked
	}
	r := f.base.Releases
	f.releases.files, f.releases.vcpus = r.Bundles, r.VCPUs
	f.releases.trustFlags = trustFlags{
		keys: r.Keys, trustedRoot: r.TrustedRoot, log: r.Log, minSerial: r.MinSerial, revocations: r.Revocations,
		identity: release.Identity{
			Subject: r.Identity, SubjectPattern: r.IdentityPattern, Issuer: r.Issuer, IssuerPattern: r.IssuerPattern,
		},
	}
	for _, sum := range r.Revoked {
		f.releases.revoked = append(f.releases.revoked, hex.EncodeToString(sum[:]))
	}
	return nil
}

// answers reports whether the file says what the first flag of a group asks.
func (f *judgeFlags) answers(flag string) bool {
	switch flag {
	case "release":
		return len(f.base.Policy.References)+len(f.base.Releases.Bundles) > 0
	case "spec":
		return f.base.Policy.HostData != nil
	default:
		return false // freshness is never a file's
	}
}

// merged returns the file's policy with the flags that stand for a value.
func (f *judgeFlags) merged(flags *pflag.FlagSet) verifier.Policy {
	p := f.base.Policy
	p.Time, p.AuthenticityOnly = time.Now(), f.authenticityOnly
	p.WithoutMeasurement, p.WithoutNonce, p.WithoutHostData = f.withoutMeasurement, f.withoutNonce, f.withoutHostData
	if flags.Changed("vmpl") {
		p.VMPL, p.WithoutVMPL = f.vmpl, false
	}
	p.WithoutVMPL = p.WithoutVMPL || f.withoutVMPL
	p.WithoutDebug = p.WithoutDebug || f.withoutDebug
	p.WithoutMigration = p.WithoutMigration || f.withoutMigration
	p.WithoutCommitted = p.WithoutCommitted || f.withoutCommitted
	p.WithoutCSPID = p.WithoutCSPID || f.withoutProviders
	p.CSPIDs = append(slices.Clone(p.CSPIDs), f.cspIDs...)
	return p
}

// readMinTCB replaces the least TCBs of every product that is accepted.
func (f *judgeFlags) readMinTCB(p *verifier.Policy) error {
	tcb, err := verifier.ParseTCB(f.minTCB)
	if err != nil {
		return fmt.Errorf("--min-tcb: %w", err)
	}
	p.Products = maps.Clone(p.Products)
	for product, minima := range p.Products {
		levels := tcb
		if product != verifier.Turin {
			levels.FMC = 0 // the others have none
		}
		minima.Reported, minima.Committed, minima.Launch = levels, levels, levels
		p.Products[product] = minima
	}
	return nil
}
