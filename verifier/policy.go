package verifier

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/idblock"
)

// Policy says what is demanded. Its zero value accepts nothing: whatever is
// neither given nor left out by a Without… field fails. Verify does not change it.
type Policy struct {
	// Time is when certificates and revocation lists must be valid. The zero
	// value is refused.
	Time time.Time

	// What is judged with. Whatever is given here is preferred to what came with
	// the report, and that to the Source's.
	VCEK  *x509.Certificate      // of the VCEK or VLEK, nil to look for it
	Chain []*x509.Certificate    // ASKs and ASVKs beside those that are compiled in
	CRLs  []*x509.RevocationList // of any products
	// Revocation says what the lack of a list in date means.
	Revocation Revocation
	// Simulated is the chain of a simulated PSP, see ParseSimulatedChain. Where
	// it is given, nothing else is trusted, AMD's roots included.
	Simulated *SimulatedChain
	// AuthenticityOnly judges certificates and signature and nothing else.
	AuthenticityOnly bool

	// Products are those that are accepted, with what is demanded of each.
	Products map[Product]ProductPolicy
	// Chips are the CHIP_IDs to accept. Empty is any.
	Chips [][64]byte
	// CSPIDs are the providers of which a VLEK must name one.
	CSPIDs []string
	// RequiredPlatform and ForbiddenPlatform are bits of PLATFORM_INFO.
	RequiredPlatform, ForbiddenPlatform PlatformInfo

	References []Reference // of which one must match
	VCPUs      int         // the number of vCPUs that the reference must have; 0 is any
	// Compute, if not nil, is asked for further references where none matches.
	Compute    func(context.Context, Report) ([]Reference, error)
	ReportData *[64]byte
	Nonce      []byte // that the evidence must carry
	TLSKey     []byte // DER SubjectPublicKeyInfo of the connection, nil where there was none
	// TLSExporter is the connection's exported keying material, with TLSKey: see
	// evidence.ExporterLabel.
	TLSExporter []byte
	HostData    *[32]byte
	VMPL        uint32
	// RequiredBits and ForbiddenBits of the guest policy. DEBUG and MIGRATE_MA
	// are forbidden in any case.
	RequiredBits, ForbiddenBits GuestPolicy
	// MinimumABI is the least version that the guest policy must demand.
	MinimumABI ABIVersion
	// MigrationAgents are the REPORT_IDs of migration agents to accept. Empty is
	// none.
	MigrationAgents [][32]byte
	// IDKeys and AuthorKeys are the digests of the keys of which one must have
	// signed the guest's ID block, and one that ID key. Empty is not checked.
	IDKeys, AuthorKeys []idblock.KeyDigest
	// FamilyID, ImageID and MinimumGuestSVN are demanded of the ID block, which
	// needs one of the keys: any host can sign an ID block. Nil and 0 are not
	// checked.
	FamilyID, ImageID *[16]byte
	MinimumGuestSVN   uint32

	// TPM is what is demanded of a virtual TPM. Nil demands no quote; one that is
	// there is judged, and fails without a policy or WithoutPCRs.
	TPM *TPMPolicy

	// What is left out. The result shows each.
	WithoutMeasurement, WithoutNonce, WithoutHostData, WithoutVMPL bool
	WithoutDebug, WithoutMigration, WithoutCommitted, WithoutCSPID bool
	WithoutPCRs                                                    bool
}

// ProductPolicy is what is demanded of a product's firmware. Zero minima demand
// nothing, which the result shows.
type ProductPolicy struct {
	// Reported, Committed and Launch are the least TCBs, level by level: a
	// certificate speaks for the reported one, a rollback goes down to the
	// committed one, and the guest was launched at the launch one.
	Reported, Committed, Launch TCB
	// Firmware is the least version of the SNP firmware, current and committed.
	Firmware FirmwareVersion
	// LaunchMitigations and CurrentMitigations are the bits that the mitigation
	// vectors must have set; reports before version 5 have none.
	LaunchMitigations, CurrentMitigations uint64
}

// Revocation says what is demanded of revocation lists.
type Revocation int

// The rules. A list that names a certificate refuses it under all of them but the last.
const (
	RevocationRequired    Revocation = iota // without a list in date there is no verdict
	RevocationIfAvailable                   // lists are looked for, and missed if there are none
	RevocationOff                           // lists are not looked at
)

var revocationNames = []string{"required", "if-available", "off"}

func (r Revocation) String() string {
	if r < 0 || int(r) >= len(revocationNames) {
		return fmt.Sprintf("revocation rule %d", int(r))
	}
	return revocationNames[r]
}

// ParseRevocation reads the name of a rule: required, if-available or off.
func ParseRevocation(name string) (Revocation, error) {
	for i, known := range revocationNames {
		if known == name {
			return Revocation(i), nil
		}
	}
	return 0, fmt.Errorf("%.40q is not required, if-available or off", name)
}

// Reference is a launch digest that is accepted, or one that is known.
type Reference struct {
	Measurement measure.Digest
	VCPUs       int    // 0 where unknown
	Label       string // for people: how such a guest is launched
	// RequiredBits and ForbiddenBits of the guest policy, by the publisher's
	// word, in addition to the policy's.
	RequiredBits, ForbiddenBits GuestPolicy
}

// check refuses a policy that cannot be applied.
func (p *Policy) check() error {
	if p.Time.IsZero() {
		return ErrTime
	}
	if p.Revocation < RevocationRequired || p.Revocation > RevocationOff {
		return fmt.Errorf("the policy has %v", p.Revocation)
	}
	if s := p.Simulated; s != nil && (s.ASK == nil || s.ARK == nil) {
		return fmt.Errorf("the simulated chain has no ASK or no ARK")
	}
	if slices.Contains(p.Chain, nil) || slices.Contains(p.CRLs, nil) {
		return fmt.Errorf("the policy has a certificate or a revocation list that is nil")
	}
	return nil
}
