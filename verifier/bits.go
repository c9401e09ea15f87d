package verifier

import (
	"fmt"
	"strings"
)

// GuestPolicy is a report's POLICY. Source: AMD 56860 rev 1.58, section 4.3,
// table 9: bits 7:0 ABI_MINOR, 15:8 ABI_MAJOR, then the bits below; bit 17 is
// always set and bits 63:26 never.
type GuestPolicy uint64

// Bits of the guest policy.
const (
	PolicySMT                  GuestPolicy = 1 << 16
	PolicyReserved1            GuestPolicy = 1 << 17 // must be one
	PolicyMigrateMA            GuestPolicy = 1 << 18
	PolicyDebug                GuestPolicy = 1 << 19
	PolicySingleSocket         GuestPolicy = 1 << 20
	PolicyCXLAllow             GuestPolicy = 1 << 21
	PolicyMemAES256XTS         GuestPolicy = 1 << 22
	PolicyRAPLDisable          GuestPolicy = 1 << 23
	PolicyCiphertextHidingDRAM GuestPolicy = 1 << 24
	PolicyPageSwapDisable      GuestPolicy = 1 << 25

	policyUnknown GuestPolicy = ^GuestPolicy(1<<26 - 1)
)

// Bits of PLATFORM_INFO. Bit 6 is set by genuine Turins and not documented.
const (
	PlatformSMT                  PlatformInfo = 1 << 0
	PlatformTSME                 PlatformInfo = 1 << 1
	PlatformECC                  PlatformInfo = 1 << 2
	PlatformRAPLDisabled         PlatformInfo = 1 << 3
	PlatformCiphertextHidingDRAM PlatformInfo = 1 << 4
	PlatformAliasCheck           PlatformInfo = 1 << 5 // no two addresses are the same memory (CVE-2024-21944, BadRAM)
	PlatformTIO                  PlatformInfo = 1 << 7
)

var policyNames = []string{
	16: "SMT", "RESERVED_1", "MIGRATE_MA", "DEBUG", "SINGLE_SOCKET", "CXL_ALLOW",
	"MEM_AES_256_XTS", "RAPL_DIS", "CIPHERTEXT_HIDING_DRAM", "PAGE_SWAP_DISABLE",
}

// ABIVersion is a version of the SNP firmware's ABI.
type ABIVersion struct{ Major, Minor byte }

func (v ABIVersion) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// ABIMajor is the least major version of the firmware's ABI.
func (p GuestPolicy) ABIMajor() byte { return byte(p >> 8) }

// ABIMinor is the least minor version of the firmware's ABI.
func (p GuestPolicy) ABIMinor() byte { return byte(p) }

// Names returns the names of the bits that are set, the ABI version aside.
func (p GuestPolicy) Names() []string { return bitNames(uint64(p)&^0xffff, policyNames) }

// String returns the number and the names of its bits.
func (p GuestPolicy) String() string {
	return withNames(uint64(p), append([]string{fmt.Sprintf("ABI %d.%d", p.ABIMajor(), p.ABIMinor())}, p.Names()...))
}

// PlatformInfo is a report's PLATFORM_INFO. Source: AMD 56860 rev 1.58,
// section 7.3, table 24.
type PlatformInfo uint64

var platformNames = []string{
	"SMT_EN", "TSME_EN", "ECC_EN", "RAPL_DIS", "CIPHERTEXT_HIDING_DRAM_EN", "ALIAS_CHECK_COMPLETE",
	"bit 6", "TIO_EN",
}

// Names returns the names of the bits that are set.
func (p PlatformInfo) Names() []string { return bitNames(uint64(p), platformNames) }

// String returns the number and the names of its bits.
func (p PlatformInfo) String() string { return withNames(uint64(p), p.Names()) }

// SigningKey is the kind of key that signed a report.
type SigningKey byte

// The kinds of keys.
const (
	VCEK SigningKey = 0
	VLEK SigningKey = 1
	None SigningKey = 7 // not signed
)

func (k SigningKey) String() string {
	switch k {
	case VCEK:
		return "VCEK"
	case VLEK:
		return "VLEK"
	case None:
		return "none"
	default:
		return fmt.Sprintf("unknown key %d", byte(k))
	}
}

// MarshalText returns the key's kind.
func (k SigningKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a key's kind.
func (k *SigningKey) UnmarshalText(text []byte) error {
	for known := range SigningKey(8) {
		if known.String() == string(text) {
			*k = known
			return nil
		}
	}
	return fmt.Errorf("unknown signing key %.40q", text)
}

// SignerInfo is the word at 0x48 of a report: bits 4:2 SIGNING_KEY, bit 1
// MASK_CHIP_KEY, bit 0 AUTHOR_KEY_EN, 31:5 reserved.
type SignerInfo uint32

// SigningKey returns the kind of key that signed the report.
func (s SignerInfo) SigningKey() SigningKey { return SigningKey(s >> 2 & 7) }

// MaskChipKey reports whether the chip's id is masked.
func (s SignerInfo) MaskChipKey() bool { return s&2 != 0 }

// AuthorKey reports whether AUTHOR_KEY_DIGEST is that of the ID block's author.
func (s SignerInfo) AuthorKey() bool { return s&1 != 0 }

func bitNames(v uint64, names []string) []string {
	var set []string
	for bit := range 64 {
		if v>>bit&1 == 0 {
			continue
		}
		if bit < len(names) && names[bit] != "" {
			set = append(set, names[bit])
		} else {
			set = append(set, fmt.Sprintf("bit %d", bit))
		}
	}
	return set
}

func withNames(v uint64, names []string) string {
	if len(names) == 0 {
		return fmt.Sprintf("0x%x", v)
	}
	return fmt.Sprintf("0x%x (%s)", v, strings.Join(names, ", "))
}
