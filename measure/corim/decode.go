package corim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Parse reads a manifest that Marshal has written. Whatever Marshal would write
// otherwise is an error: an unknown member, another encoding, a demand of nothing.
func Parse(data []byte) (Manifest, error) {
	m, err := parse(data)
	if err != nil {
		return Manifest{}, fmt.Errorf("reading a CoRIM: %w", err)
	}
	return m, nil
}

func parse(data []byte) (Manifest, error) {
	if len(data) > MaxSize {
		return Manifest{}, fmt.Errorf("%d bytes, more than %d", len(data), MaxSize)
	}
	c, err := newCodec()
	if err != nil {
		return Manifest{}, err
	}
	var outer wireCoRIM
	if err := c.Unmarshal(data, &outer); err != nil {
		return Manifest{}, fmt.Errorf("corim-map: %w", err)
	}
	if outer.Profile != Profile {
		return Manifest{}, fmt.Errorf("corim-map: profile: %.80q, want %q", outer.Profile, Profile)
	}
	if len(outer.Tags) != 1 {
		return Manifest{}, fmt.Errorf("corim-map: %d tags, want 1", len(outer.Tags))
	}
	var tag wireCoMID
	if err := c.Unmarshal(outer.Tags[0], &tag); err != nil {
		return Manifest{}, fmt.Errorf("concise-mid-tag: %w", err)
	}
	m := Manifest{ID: tag.Identity.ID, Version: tag.Identity.Version}
	for i, triple := range tag.Triples.References {
		r, err := triple.reference()
		if err != nil {
			return Manifest{}, fmt.Errorf("concise-mid-tag: reference-triples[%d]: %w", i, err)
		}
		m.References = append(m.References, r)
	}
	again, err := marshal(m)
	if err != nil {
		return Manifest{}, err
	}
	if at := firstDifference(data, again); at >= 0 {
		return Manifest{}, fmt.Errorf("offset %d: not as kattest writes it", at)
	}
	return m, nil
}

// firstDifference returns the offset at which two encodings part, -1 if nowhere.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func (w wireReference) reference() (Reference, error) {
	if string(w.Environment.Class.ID) != classByChip {
		return Reference{}, fmt.Errorf("environment: class-id %.40x, want %x", []byte(w.Environment.Class.ID), classByChip)
	}
	var r Reference
	seen := map[uint64]bool{}
	for _, claim := range w.Claims {
		if seen[claim.Key] {
			return Reference{}, fmt.Errorf("mkey %d: stands twice", claim.Key)
		}
		seen[claim.Key] = true
		if err := r.read(claim); err != nil {
			return Reference{}, fmt.Errorf("mkey %d: %w", claim.Key, err)
		}
	}
	if !seen[keyMeasurement] {
		return Reference{}, fmt.Errorf("no mkey %d, MEASUREMENT", keyMeasurement)
	}
	return r, nil
}

// read takes one claim over.
func (r *Reference) read(claim wireMeasurement) (err error) {
	v := claim.Value
	switch claim.Key {
	case keyGuestSVN:
		var svn uint64
		if svn, err = v.minSVN(); err == nil && svn > math.MaxUint32 {
			err = fmt.Errorf("min-svn: %d has more than 32 bits", svn)
		}
		r.MinGuestSVN = uint32(svn)
	case keyPolicy:
		r.Policy, err = v.bits()
	case keyFamilyID:
		r.FamilyID, err = v.id()
	case keyImageID:
		r.ImageID, err = v.id()
	case keyVMPL:
		var vmpl uint64
		vmpl, err = v.integer(math.MaxUint32)
		level := uint32(vmpl)
		r.VMPL = &level
	case keyPlatformInfo:
		r.Platform, err = v.bits()
	case keyMeasurement:
		r.Measurement, err = v.digest()
	case keyIDKey:
		r.IDKey, err = pointer(v.digest())
	case keyAuthorKey:
		r.AuthorKey, err = pointer(v.digest())
	case keyReportedTCB:
		r.MinReported, err = v.minSVN()
	case keyCPUIDFamily:
		var family uint64
		family, err = v.integer(math.MaxUint8)
		r.processors().Family = byte(family)
	case keyCPUIDModel:
		err = r.readModels(v)
	case keyCommittedTCB:
		r.MinCommitted, err = v.minSVN()
	case keyLaunchTCB:
		r.MinLaunch, err = v.minSVN()
	default:
		err = errors.New("not one that kattest writes")
	}
	return err
}

func (r *Reference) processors() *Processors {
	if r.Processors == nil {
		r.Processors = &Processors{}
	}
	return r.Processors
}

func (r *Reference) readModels(v wireValues) error {
	models, ok := v.Int.(wireRange)
	if !ok || models.Min > math.MaxUint8 || models.Max > math.MaxUint8 {
		return errors.New("int-range: want two models of 8 bits")
	}
	r.processors().First, r.processors().Last = byte(models.Min), byte(models.Max)
	return nil
}

func (v wireValues) minSVN() (uint64, error) {
	if v.MinSVN == nil {
		return 0, errors.New("want a min-svn")
	}
	return uint64(*v.MinSVN), nil
}

func (v wireValues) bits() (Bits, error) {
	masked, ok := v.Raw.(wireMasked)
	if !ok || len(masked.Value) != 8 || len(masked.Mask) != 8 {
		return Bits{}, errors.New("raw-value: want a masked one of 8 bytes")
	}
	value, mask := binary.LittleEndian.Uint64(masked.Value), binary.LittleEndian.Uint64(masked.Mask)
	return Bits{Required: value & mask, Forbidden: mask &^ value}, nil
}

func (v wireValues) id() (*[16]byte, error) {
	raw, ok := v.Raw.(wireRaw)
	if !ok || len(raw) != 16 {
		return nil, errors.New("raw-value: want 16 bytes")
	}
	return (*[16]byte)(raw), nil
}

func (v wireValues) integer(most uint64) (uint64, error) {
	n, ok := v.Int.(uint64)
	if !ok || n > most {
		return 0, fmt.Errorf("int-range: want a number up to %d", most)
	}
	return n, nil
}

func (v wireValues) digest() ([48]byte, error) {
	if len(v.Digests) != 1 || v.Digests[0].Algorithm != sha384 || len(v.Digests[0].Value) != 48 {
		return [48]byte{}, fmt.Errorf("digests: want one of 48 bytes, of algorithm %d", sha384)
	}
	return [48]byte(v.Digests[0].Value), nil
}

func pointer[T any](v T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return &v, nil
}
