package kattest

import (
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/corim"
	"github.com/kraudcloud/kattest/measure/idblock"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/verifier"
)

// encodeCoRIM returns the manifest, signed where there is a key.
func encodeCoRIM(m corim.Manifest, key crypto.Signer) ([]byte, error) {
	if key == nil {
		return corim.Marshal(m)
	}
	out, err := corim.Sign(m, key)
	if errors.Is(err, corim.ErrSignature) {
		return nil, &cli.Error{Code: cli.ExitSignature, Err: err}
	}
	return out, err
}

// corimManifest returns what a verifier would demand of a launch of the release
// under the policy, as far as a CoRIM has places for it: for each launch digest
// and each line of processors one reference. Its name is that of the release, by
// the statement's digest.
func corimManifest(r release.Release, statement measure.Hash, p verifier.Policy) (corim.Manifest, error) {
	platforms, err := corimPlatforms(corimCommon(r, p), p)
	if err != nil {
		return corim.Manifest{}, err
	}
	m := corim.Manifest{ID: release.PredicateType + "#sha256:" + statement.String(), Version: r.Serial}
	seen := map[measure.Digest]bool{} // CPU models may share a signature
	for _, e := range r.Table {
		if seen[e.Measurement] {
			continue
		}
		seen[e.Measurement] = true
		for _, reference := range platforms {
			reference.Measurement = e.Measurement
			m.References = append(m.References, reference)
		}
	}
	return m, nil
}

// corimCommon is what is demanded of every launch on every processor.
func corimCommon(r release.Release, p verifier.Policy) corim.Reference {
	common := corim.Reference{
		Policy:   corim.Bits{Required: r.Policy.Required | uint64(p.RequiredBits), Forbidden: r.Policy.Forbidden | uint64(p.ForbiddenBits)},
		Platform: corim.Bits{Required: uint64(p.RequiredPlatform), Forbidden: uint64(p.ForbiddenPlatform)},
		FamilyID: p.FamilyID, ImageID: p.ImageID, MinGuestSVN: p.MinimumGuestSVN,
		IDKey: onlyKey(p.IDKeys), AuthorKey: onlyKey(p.AuthorKeys),
	}
	if !p.WithoutVMPL {
		common.VMPL = &p.VMPL
	}
	return common
}

func onlyKey(keys []idblock.KeyDigest) *[48]byte {
	if len(keys) != 1 {
		return nil
	}
	return (*[48]byte)(&keys[0])
}

// corimPlatforms returns common for each line of processors that is accepted,
// with the least TCBs of its product.
func corimPlatforms(common corim.Reference, p verifier.Policy) ([]corim.Reference, error) {
	var platforms []corim.Reference
	for _, product := range verifier.Products() {
		minima, ok := p.Products[product]
		if !ok {
			continue
		}
		reference := common
		for _, level := range []struct {
			least verifier.TCB
			put   *uint64
		}{
			{minima.Reported, &reference.MinReported},
			{minima.Committed, &reference.MinCommitted},
			{minima.Launch, &reference.MinLaunch},
		} {
			version, err := level.least.Encode(product)
			if err != nil {
				return nil, err
			}
			*level.put = binary.LittleEndian.Uint64(version[:])
		}
		for _, models := range product.Models() {
			processors := corim.Processors(models)
			reference.Processors = &processors
			platforms = append(platforms, reference)
		}
	}
	if len(platforms) == 0 {
		return nil, errors.New("--policy accepts no processor")
	}
	return platforms, nil
}

// corimLacks names the fields of a policy file that ask for what a CoRIM has no
// place for. What every policy asks for, docs/spec/corim.md names.
func corimLacks(p verifier.Policy) []string {
	var lacks []string
	lack := func(asked bool, name string) {
		if asked {
			lacks = append(lacks, name)
		}
	}
	for _, product := range verifier.Products() {
		minima := p.Products[product]
		lack(minima.Firmware != verifier.FirmwareVersion{}, fmt.Sprintf("products.%v.firmware", product))
		lack(minima.LaunchMitigations != 0, fmt.Sprintf("products.%v.launch-mitigations", product))
		lack(minima.CurrentMitigations != 0, fmt.Sprintf("products.%v.current-mitigations", product))
	}
	lack(len(p.Chips) > 0, "chips")
	lack(len(p.CSPIDs) > 0 || p.WithoutCSPID, "csp-ids")
	lack(len(p.MigrationAgents) > 0, "migration-agents")
	lack(p.HostData != nil, "host-data")
	lack(p.MinimumABI != verifier.ABIVersion{}, "guest-policy.abi")
	lack(len(p.IDKeys) > 1, "id-block.id-keys (more than one)")
	lack(len(p.AuthorKeys) > 1, "id-block.author-keys (more than one)")
	lack(p.TPM != nil, "tpm")
	return slices.Clip(lacks)
}
