package measure

import (
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// PageSize is the unit of measurement, in bytes. KVM adds 2 MiB pages as 512 of these.
const PageSize = 4096

// Digest is a launch digest, SHA-384, as in the report's MEASUREMENT.
type Digest [48]byte

// ParseDigest reads 96 hexadecimal digits.
func ParseDigest(s string) (Digest, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Digest{}) {
		return Digest{}, fmt.Errorf("%.100q is not a launch digest of %d hexadecimal digits", s, 2*len(Digest{}))
	}
	return Digest(b), nil
}

// String returns d in lower-case hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns d in lower-case hexadecimal.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads 96 hexadecimal digits.
func (d *Digest) UnmarshalText(text []byte) error {
	parsed, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// PageType is PAGE_TYPE of SNP_LAUNCH_UPDATE.
// Source: AMD 56860 rev 1.58, section 8.17.2.
type PageType uint8

// The page types.
const (
	PageNormal     PageType = 1 // contents measured
	PageVMSA       PageType = 2 // contents measured
	PageZero       PageType = 3 // zeroed by the firmware
	PageUnmeasured PageType = 4 // contents not measured
	PageSecrets    PageType = 5 // filled by the firmware
	PageCPUID      PageType = 6 // checked by the firmware
)

var pageTypes = [...]string{PageNormal: "NORMAL", PageVMSA: "VMSA", PageZero: "ZERO", PageUnmeasured: "UNMEASURED", PageSecrets: "SECRETS", PageCPUID: "CPUID"}

// Measured reports whether the contents of pages of the type enter the digest.
func (t PageType) Measured() bool { return t == PageNormal || t == PageVMSA }

func (t PageType) known() bool { return t != 0 && int(t) < len(pageTypes) }

func (t PageType) String() string {
	if !t.known() {
		return fmt.Sprintf("page type %d", uint8(t))
	}
	return pageTypes[t]
}

// MarshalText returns the type's name.
func (t PageType) MarshalText() ([]byte, error) {
	if !t.known() {
		return nil, fmt.Errorf("%v has no name", t)
	}
	return []byte(t.String()), nil
}

// UnmarshalText reads a type's name.
func (t *PageType) UnmarshalText(text []byte) error {
	for i, name := range pageTypes {
		if i > 0 && name == string(text) {
			*t = PageType(i)
			return nil
		}
	}
	return fmt.Errorf("unknown page type %.80q", text)
}

// PageInfo is what one page adds to the digest. Contents is SHA-384 of the page
// for PageNormal and PageVMSA, and zero for the others, of which type and
// address are measured all the same.
type PageInfo struct {
	Contents Digest
	Type     PageType
	GPA      uint64
}

// pageInfoSize is the size of PAGE_INFO in bytes.
const pageInfoSize = 0x70

// Extend returns the digest after one more page: SHA-384 over PAGE_INFO.
//
//	offset  size  field
//	0x00    48    DIGEST_CUR, the digest before
//	0x30    48    CONTENTS
//	0x60    2     LENGTH, 0x70, little-endian
//	0x62    1     PAGE_TYPE
//	0x63    1     IMI_PAGE in bit 0, else reserved; 0
//	0x64    1     reserved, 0
//	0x65    3     VMPL1_PERMS, VMPL2_PERMS, VMPL3_PERMS; KVM gives 0
//	0x68    8     GPA, little-endian
//
// Source: AMD 56860 rev 1.58, section 8.17.2, table 67.
func (d Digest) Extend(p PageInfo) Digest {
	var b [pageInfoSize]byte
	copy(b[0x00:], d[:])
	copy(b[0x30:], p.Contents[:])
	binary.LittleEndian.PutUint16(b[0x60:], pageInfoSize)
	b[0x62] = byte(p.Type)
	binary.LittleEndian.PutUint64(b[0x68:], p.GPA)
	return sha512.Sum384(b[:])
}

func hashPage(page *[PageSize]byte) Digest { return sha512.Sum384(page[:]) }
