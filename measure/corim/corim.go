// Package corim writes reference values as a Concise Reference Integrity
// Manifest: what a verifier of the RATS architecture compares a report with. It
// follows draft-ietf-rats-corim-11 and the SEV-SNP profile of
// draft-deeglaze-amd-sev-snp-corim-profile; docs/spec/corim.md says how, and
// where the two do not agree.
//
// The package reads what it writes and nothing else: other manifests of the same
// meaning are refused, not misread. It neither computes a launch digest nor judges
// a report, and a manifest is as good as who signed it.
package corim

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kraudcloud/kattest/measure"
)

// MaxSize bounds a manifest, in bytes.
const MaxSize = 16 << 20

// Profile names the profile of the draft's editor's copy, as a manifest does.
const Profile = "tag:amd.com,2025:snp-corim-profile"

// Manifest holds the reference values of one CoMID.
type Manifest struct {
	// ID names the manifest and its only tag, 1 to 256 bytes of UTF-8.
	ID string
	// Version is that of the tag: the release's serial.
	Version uint64
	// References are alternatives: a report has to match all of one.
	References []Reference
}

// Reference is a state in which a guest may be: fields of its report. What is nil
// or zero, but for Measurement, is not demanded.
type Reference struct {
	Measurement      measure.Digest
	Policy, Platform Bits
	VMPL             *uint32
	FamilyID         *[16]byte
	ImageID          *[16]byte
	IDKey, AuthorKey *[48]byte // SHA-384 of the keys
	// MinGuestSVN is the least GUEST_SVN.
	MinGuestSVN uint32
	// Processors are those whose reports match, nil any. Reports name them from
	// version 3 on.
	Processors *Processors
	// MinReported, MinCommitted and MinLaunch are the least TCB_VERSIONs, read as
	// one little-endian number each. That is less than levels one by one: a
	// greater microcode outweighs all that is below it.
	MinReported, MinCommitted, MinLaunch uint64
}

// Bits are demanded of a field of 64: all of Required set, all of Forbidden clear.
type Bits struct{ Required, Forbidden uint64 }

func (b Bits) mask() uint64 { return b.Required | b.Forbidden }

// Processors are those of a family with models First to Last, as CPUID counts them.
type Processors struct{ Family, First, Last byte }

// String spells out what is demanded, by the names of the report's fields.
func (r Reference) String() string {
	parts := []string{"MEASUREMENT " + r.Measurement.String()}
	add := func(given bool, format string, args ...any) {
		if given {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	bits := func(name string, b Bits) {
		add(b.mask() != 0, "%s 0x%x set, 0x%x clear", name, b.Required, b.Forbidden)
	}
	add(r.MinGuestSVN != 0, "GUEST_SVN at least %d", r.MinGuestSVN)
	bits("POLICY", r.Policy)
	if r.FamilyID != nil {
		add(true, "FAMILY_ID %x", *r.FamilyID)
	}
	if r.ImageID != nil {
		add(true, "IMAGE_ID %x", *r.ImageID)
	}
	if r.VMPL != nil {
		add(true, "VMPL %d", *r.VMPL)
	}
	bits("PLATFORM_INFO", r.Platform)
	if r.IDKey != nil {
		add(true, "ID_KEY_DIGEST %x", *r.IDKey)
	}
	if r.AuthorKey != nil {
		add(true, "AUTHOR_KEY_DIGEST %x", *r.AuthorKey)
	}
	if p := r.Processors; p != nil {
		add(true, "family 0x%x, models 0x%x to 0x%x", p.Family, p.First, p.Last)
	}
	add(r.MinReported != 0, "REPORTED_TCB at least 0x%016x", r.MinReported)
	add(r.MinCommitted != 0, "COMMITTED_TCB at least 0x%016x", r.MinCommitted)
	add(r.MinLaunch != 0, "LAUNCH_TCB at least 0x%016x", r.MinLaunch)
	return strings.Join(parts, "; ")
}

// check refuses what no report could match or what could not be told apart.
func (m Manifest) check() error {
	var errs []error
	if !isText(m.ID) {
		errs = append(errs, fmt.Errorf("id: %.80q is not 1 to %d bytes of UTF-8", m.ID, maxText))
	}
	if len(m.References) == 0 {
		errs = append(errs, errors.New("no reference values"))
	}
	for i, r := range m.References {
		if err := r.check(); err != nil {
			errs = append(errs, fmt.Errorf("reference %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (r Reference) check() error {
	var errs []error
	bits := func(name string, b Bits) {
		if both := b.Required & b.Forbidden; both != 0 {
			errs = append(errs, fmt.Errorf("%s: bits 0x%x both set and clear", name, both))
		}
	}
	bits("POLICY", r.Policy)
	bits("PLATFORM_INFO", r.Platform)
	if r.VMPL != nil && *r.VMPL > 3 {
		errs = append(errs, fmt.Errorf("VMPL: %d, the last is 3", *r.VMPL))
	}
	if p := r.Processors; p != nil && p.First > p.Last {
		errs = append(errs, fmt.Errorf("models 0x%x to 0x%x: none", p.First, p.Last))
	}
	return errors.Join(errs...)
}
