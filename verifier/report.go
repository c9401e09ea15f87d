package verifier

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/kraudcloud/kattest/measure"
)

// ReportSize is the size of an attestation report, in bytes.
const ReportSize = 1184

const (
	signatureOffset = 0x2a0 // what comes before is signed
	scalarSize      = 72    // R and S, little-endian
	algoECDSAP384   = 1     // ECDSA P-384 with SHA-384
)

// Versions of reports that are read.
const (
	MinVersion = 2
	MaxVersion = 5
)

// Report is an attestation report. Its signature is over the raw bytes, which
// it keeps.
type Report struct {
	Version         uint32
	GuestSVN        uint32
	Policy          GuestPolicy
	FamilyID        [16]byte
	ImageID         [16]byte
	VMPL            uint32
	SignatureAlgo   uint32
	CurrentTCB      TCBVersion
	PlatformInfo    PlatformInfo
	SignerInfo      SignerInfo
	ReportData      [64]byte
	Measurement     measure.Digest
	HostData        [32]byte
	IDKeyDigest     [48]byte // zero where there is no ID block
	AuthorKeyDigest [48]byte
	ReportID        [32]byte
	ReportIDMA      [32]byte
	ReportedTCB     TCBVersion
	Family          byte // version 3 and later
	Model           byte
	Stepping        byte
	ChipID          [64]byte
	CommittedTCB    TCBVersion
	Current         FirmwareVersion
	Committed       FirmwareVersion
	LaunchTCB       TCBVersion
	LaunchMitVector uint64 // version 5 and later
	CurrentMit      uint64

	raw [ReportSize]byte
}

// FirmwareVersion is the version of the SNP firmware.
type FirmwareVersion struct{ Major, Minor, Build byte }

// before reports whether v is an older version than other.
func (v FirmwareVersion) before(other FirmwareVersion) bool {
	return slices.Compare([]byte{v.Major, v.Minor, v.Build}, []byte{other.Major, other.Minor, other.Build}) < 0
}

func (v FirmwareVersion) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Build) }

// Bytes returns the report as it was read.
func (r Report) Bytes() [ReportSize]byte { return r.raw }

// Product returns the processor's product. Reports of version 2 do not say it.
func (r Report) Product() (Product, error) {
	if r.Version < 3 {
		return UnknownProduct, fmt.Errorf("a report of version %d does not name its product", r.Version)
	}
	return productOf(r.Family, r.Model)
}

// ParseReport reads a report and checks its version first, and then that what
// that version reserves is zero. It does not check the signature.
//
// ATTESTATION_REPORT. Source: AMD 56860 rev 1.58, section 7.3, table 23.
//
//	offset  size  field
//	0x000   4     VERSION, 2 to 5
//	0x004   4     GUEST_SVN
//	0x008   8     POLICY
//	0x010   16    FAMILY_ID
//	0x020   16    IMAGE_ID
//	0x030   4     VMPL
//	0x034   4     SIGNATURE_ALGO, 1
//	0x038   8     CURRENT_TCB
//	0x040   8     PLATFORM_INFO
//	0x048   4     SIGNER_INFO
//	0x04c   4     reserved
//	0x050   64    REPORT_DATA
//	0x090   48    MEASUREMENT
//	0x0c0   32    HOST_DATA
//	0x0e0   48    ID_KEY_DIGEST
//	0x110   48    AUTHOR_KEY_DIGEST
//	0x140   32    REPORT_ID
//	0x160   32    REPORT_ID_MA
//	0x180   8     REPORTED_TCB
//	0x188   3     CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP; reserved in version 2
//	0x18b   21    reserved
//	0x1a0   64    CHIP_ID
//	0x1e0   8     COMMITTED_TCB
//	0x1e8   3     CURRENT_BUILD, CURRENT_MINOR, CURRENT_MAJOR
//	0x1eb   1     reserved
//	0x1ec   3     COMMITTED_BUILD, COMMITTED_MINOR, COMMITTED_MAJOR
//	0x1ef   1     reserved
//	0x1f0   8     LAUNCH_TCB
//	0x1f8   8     LAUNCH_MIT_VECTOR; reserved before version 5
//	0x200   8     CURRENT_MIT_VECTOR; reserved before version 5
//	0x208   152   reserved
//	0x2a0   72    R of the signature over 0x000 to 0x29f, little-endian
//	0x2e8   72    S
//	0x330   368   reserved
func ParseReport(data []byte) (Report, error) {
	if len(data) != ReportSize {
		return Report{}, problem(Problem{Code: CodeSize, Expected: fmt.Sprint(ReportSize), Found: fmt.Sprintf("%d bytes", len(data))})
	}
	le := binary.LittleEndian
	version := le.Uint32(data)
	if version < MinVersion || version > MaxVersion {
		return Report{}, problem(Problem{Code: CodeVersion, Expected: fmt.Sprintf("%d to %d", MinVersion, MaxVersion), Found: fmt.Sprint(version)})
	}
	r := Report{
		Version:         version,
		GuestSVN:        le.Uint32(data[0x004:]),
		Policy:          GuestPolicy(le.Uint64(data[0x008:])),
		FamilyID:        [16]byte(data[0x010:]),
		ImageID:         [16]byte(data[0x020:]),
		VMPL:            le.Uint32(data[0x030:]),
		SignatureAlgo:   le.Uint32(data[0x034:]),
		CurrentTCB:      TCBVersion(data[0x038:]),
		PlatformInfo:    PlatformInfo(le.Uint64(data[0x040:])),
		SignerInfo:      SignerInfo(le.Uint32(data[0x048:])),
		ReportData:      [64]byte(data[0x050:]),
		Measurement:     measure.Digest(data[0x090:]),
		HostData:        [32]byte(data[0x0c0:]),
		IDKeyDigest:     [48]byte(data[0x0e0:]),
		AuthorKeyDigest: [48]byte(data[0x110:]),
		ReportID:        [32]byte(data[0x140:]),
		ReportIDMA:      [32]byte(data[0x160:]),
		ReportedTCB:     TCBVersion(data[0x180:]),
		Family:          data[0x188],
		Model:           data[0x189],
		Stepping:        data[0x18a],
		ChipID:          [64]byte(data[0x1a0:]),
		CommittedTCB:    TCBVersion(data[0x1e0:]),
		Current:         FirmwareVersion{Build: data[0x1e8], Minor: data[0x1e9], Major: data[0x1ea]},
		Committed:       FirmwareVersion{Build: data[0x1ec], Minor: data[0x1ed], Major: data[0x1ee]},
		LaunchTCB:       TCBVersion(data[0x1f0:]),
		LaunchMitVector: le.Uint64(data[0x1f8:]),
		CurrentMit:      le.Uint64(data[0x200:]),
		raw:             [ReportSize]byte(data),
	}
	if all := append(checkReserved(data, version), r.checkValues()...); len(all) > 0 {
		return Report{}, &MalformedError{all}
	}
	return r, nil
}

// checkReserved reports every reserved byte that is not zero.
func checkReserved(data []byte, version uint32) []Problem {
	ranges := [][2]int{
		{0x04c, 0x050},
		{0x18b, 0x1a0},
		{0x1eb, 0x1ec},
		{0x1ef, 0x1f0},
		{0x208, signatureOffset},
		// R and S are of 48 bytes on P-384, in fields of 72.
		{0x2d0, 0x2e8},
		{0x318, 0x330},
		{0x330, ReportSize},
	}
	if version < 3 {
		ranges = append(ranges, [2]int{0x188, 0x18b})
	}
	if version < 5 {
		ranges = append(ranges, [2]int{0x1f8, 0x208})
	}
	var all []Problem
	for _, r := range ranges {
		for i := r[0]; i < r[1]; i++ {
			if data[i] != 0 {
				all = append(all, Problem{
					Code: CodeReserved, Bytes: Range{r[0], r[1] - r[0]},
					Expected: fmt.Sprintf("zeros, reserved in version %d", version), Found: fmt.Sprintf("0x%02x at byte 0x%03x", data[i], i),
				})
				break
			}
		}
	}
	return all
}

func (r Report) checkValues() []Problem {
	var all []Problem
	if r.SignatureAlgo != algoECDSAP384 {
		all = append(all, Problem{Code: CodeAlgorithm, Expected: fmt.Sprintf("%d (ECDSA P-384 with SHA-384)", algoECDSAP384), Found: fmt.Sprint(r.SignatureAlgo)})
	}
	if r.SignerInfo>>5 != 0 {
		all = append(all, Problem{Code: CodeSigner, Expected: "bits 31:5 clear", Found: fmt.Sprintf("0x%x", uint32(r.SignerInfo))})
	}
	if r.VMPL > 3 {
		all = append(all, Problem{Code: CodeLevel, Expected: "0 to 3", Found: fmt.Sprint(r.VMPL)})
	}
	return all
}
