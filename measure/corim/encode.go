package corim

import (
	"encoding/binary"
	"fmt"
)

// Marshal returns the manifest as a tagged-unsigned-corim-map, in the core
// deterministic encoding: the same bytes for the same values.
func Marshal(m Manifest) ([]byte, error) {
	out, err := marshal(m)
	if err != nil {
		return nil, fmt.Errorf("writing a CoRIM: %w", err)
	}
	return out, nil
}

func marshal(m Manifest) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	tag := wireCoMID{Identity: wireIdentity{m.ID, m.Version}}
	for _, r := range m.References {
		tag.Triples.References = append(tag.Triples.References, wireReference{
			Environment: wireEnvironment{wireClass{wireOID(classByChip)}},
			Claims:      r.claims(),
		})
	}
	comid, err := c.Marshal(tag)
	if err != nil {
		return nil, err
	}
	out, err := c.Marshal(wireCoRIM{ID: m.ID, Tags: []wireBytes{comid}, Profile: Profile})
	if err != nil {
		return nil, err
	}
	if len(out) > MaxSize {
		return nil, fmt.Errorf("%d bytes, more than %d", len(out), MaxSize)
	}
	return out, nil
}

// claims returns what is demanded, in the order of the mkeys.
func (r Reference) claims() []wireMeasurement {
	var claims []wireMeasurement
	add := func(key uint64, v wireValues) { claims = append(claims, wireMeasurement{key, v}) }
	atLeast := func(key, least uint64) {
		if least != 0 {
			add(key, wireValues{MinSVN: (*wireMinSVN)(&least)})
		}
	}
	bits := func(key uint64, b Bits) {
		if b.mask() != 0 {
			add(key, wireValues{Raw: wireMasked{Value: littleEndian(b.Required), Mask: littleEndian(b.mask())}})
		}
	}
	digest := func(key uint64, value []byte) {
		add(key, wireValues{Digests: []wireDigest{{Algorithm: sha384, Value: value}}})
	}
	atLeast(keyGuestSVN, uint64(r.MinGuestSVN))
	bits(keyPolicy, r.Policy)
	if r.FamilyID != nil {
		add(keyFamilyID, wireValues{Raw: wireRaw(r.FamilyID[:])})
	}
	if r.ImageID != nil {
		add(keyImageID, wireValues{Raw: wireRaw(r.ImageID[:])})
	}
	if r.VMPL != nil {
		add(keyVMPL, wireValues{Int: uint64(*r.VMPL)})
	}
	bits(keyPlatformInfo, r.Platform)
	digest(keyMeasurement, r.Measurement[:])
	if r.IDKey != nil {
		digest(keyIDKey, r.IDKey[:])
	}
	if r.AuthorKey != nil {
		digest(keyAuthorKey, r.AuthorKey[:])
	}
	atLeast(keyReportedTCB, r.MinReported)
	if p := r.Processors; p != nil {
		add(keyCPUIDFamily, wireValues{Int: uint64(p.Family)})
		add(keyCPUIDModel, wireValues{Int: wireRange{Min: uint64(p.First), Max: uint64(p.Last)}})
	}
	atLeast(keyCommittedTCB, r.MinCommitted)
	atLeast(keyLaunchTCB, r.MinLaunch)
	return claims
}

// littleEndian returns a field of 8 bytes as a report has it.
func littleEndian(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
