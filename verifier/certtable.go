package verifier

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/kraudcloud/kattest/guest/evidence"
)

const (
	certificateEntrySize  = 24
	maxCertificateEntries = 64
)

// GUID is the sixteen bytes of a GUID in the order of its text.
type GUID [16]byte

// String returns the GUID in its usual form.
func (g GUID) String() string {
	s := hex.EncodeToString(g[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// swapped returns the GUID in the other byte order, that of Microsoft and UEFI:
// the first three groups little-endian.
func (g GUID) swapped() GUID {
	s := g
	s[0], s[1], s[2], s[3] = g[3], g[2], g[1], g[0]
	s[4], s[5] = g[5], g[4]
	s[6], s[7] = g[7], g[6]
	return s
}

// GUIDs of certificates.
// Source: AMD 56421 rev 2.03 (GHCB), section 4.1.8.1, table 7.
var (
	guidVCEK = GUID{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd}
	guidVLEK = GUID{0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1}
	guidASK  = GUID{0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4, 0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82}
	guidARK  = GUID{0xc0, 0xb4, 0x06, 0xa4, 0xa8, 0x03, 0x49, 0x52, 0x97, 0x43, 0x3f, 0xb6, 0x01, 0x4c, 0xd0, 0xae}
)

// CertificateEntry is one entry of a certificate table.
type CertificateEntry struct {
	GUID GUID   // as it stands in the table
	Data []byte // usually a certificate in DER; the host's word, not checked
}

// Name returns what the entry's GUID stands for, in either byte order, or the GUID.
func (e CertificateEntry) Name() string {
	for _, known := range []struct {
		guid GUID
		name string
	}{{guidVCEK, "VCEK"}, {guidVLEK, "VLEK"}, {guidASK, "ASK"}, {guidARK, "ARK"}} {
		if e.GUID == known.guid || e.GUID == known.guid.swapped() {
			return known.name
		}
	}
	return e.GUID.String()
}

// CertificateTable is what the host hands a guest with a report.
type CertificateTable struct {
	Entries []CertificateEntry
	raw     []byte
}

// Bytes returns the table as it was read.
func (t CertificateTable) Bytes() []byte { return t.raw }

// ParseCertificateTable reads a certificate table of at most 64 KiB. No bytes
// at all are a table without entries. Offsets and lengths are the host's and
// checked in 64 bits, and no two entries share a byte; certificates are not
// parsed.
//
// Source: AMD 56421 rev 2.03 (GHCB), section 4.1.8.1, table 7.
//
//	offset  size  field
//	0x00    16    GUID of the first entry; all zero ends the entries
//	0x10    4     its data's offset from the table's start, bytes
//	0x14    4     its data's length, bytes
//	0x18    …     the other entries, 24 bytes each
func ParseCertificateTable(data []byte) (CertificateTable, error) {
	if len(data) == 0 {
		return CertificateTable{}, nil
	}
	if len(data) > evidence.MaxCertificates {
		return CertificateTable{}, tableError("%d bytes, more than %d", len(data), evidence.MaxCertificates)
	}
	t := CertificateTable{raw: data}
	type span struct{ offset, length uint64 }
	var spans []span
	for at := 0; ; at += certificateEntrySize {
		if len(data)-at < certificateEntrySize {
			return CertificateTable{}, tableError("offset 0x%x: ends without an entry of zeros", at)
		}
		guid := GUID(data[at:])
		s := span{
			uint64(binary.LittleEndian.Uint32(data[at+0x10:])),
			uint64(binary.LittleEndian.Uint32(data[at+0x14:])),
		}
		if guid == (GUID{}) {
			if s != (span{}) {
				return CertificateTable{}, tableError("offset 0x%x: last entry has offset 0x%x and length 0x%x, want zeros", at, s.offset, s.length)
			}
			break
		}
		if len(spans) == maxCertificateEntries {
			return CertificateTable{}, tableError("offset 0x%x: more than %d entries", at, maxCertificateEntries)
		}
		spans = append(spans, s)
		t.Entries = append(t.Entries, CertificateEntry{GUID: guid})
	}
	first := uint64(len(spans)+1) * certificateEntrySize
	for i, s := range spans {
		if s.offset < first || s.offset+s.length > uint64(len(data)) {
			return CertificateTable{}, tableError("offset 0x%x: entry %s: data at 0x%x, 0x%x bytes, is not within 0x%x to 0x%x",
				i*certificateEntrySize, t.Entries[i].Name(), s.offset, s.length, first, len(data))
		}
		for j, other := range spans[:i] {
			if s.offset < other.offset+other.length && other.offset < s.offset+s.length {
				return CertificateTable{}, tableError("offset 0x%x: entry %s: data at 0x%x, 0x%x bytes, overlaps that of entry %d",
					i*certificateEntrySize, t.Entries[i].Name(), s.offset, s.length, j)
			}
		}
		t.Entries[i].Data = data[s.offset : s.offset+s.length]
	}
	return t, nil
}

func tableError(format string, args ...any) error {
	return problem(Problem{Code: CodeTable, Reason: fmt.Sprintf(format, args...)})
}
