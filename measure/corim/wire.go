package corim

import (
	"reflect"
	"sync"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

const maxText = 256

func isText(s string) bool { return s != "" && len(s) <= maxText && utf8.ValidString(s) }

// CBOR tags. Source: draft-ietf-rats-corim-11, section 12 (IANA Considerations),
// New CBOR Tags; RFC 9090 (111) and RFC 8949 (32) for the others.
const (
	tagURI              = 32
	tagOID              = 111
	tagCoRIM            = 501
	tagCoMID            = 506
	tagMinSVN           = 553
	tagBytes            = 560
	tagMaskedRaw        = 563
	tagIntRange         = 564
	sha384       uint64 = 7 // IANA, Named Information Hash Algorithm Registry
)

// classByChip is the class of reports that a VCEK signs, 1.3.6.1.4.1.3704.3.1:
// the contents octets alone, as tag 111 has them (RFC 9090, section 2).
const classByChip = "\x2b\x06\x01\x04\x01\x9c\x78\x03\x01"

// Names of a report's fields in a CoMID, each the mkey of a measurement-map.
// Source: draft-deeglaze-amd-sev-snp-corim-profile, editor's copy of 21 June 2025
// (commit 0fbed55), AMD SEV-SNP measurements.
const (
	keyGuestSVN     = 1
	keyPolicy       = 2
	keyFamilyID     = 3
	keyImageID      = 4
	keyVMPL         = 5
	keyPlatformInfo = 7
	keyMeasurement  = 641
	keyIDKey        = 643
	keyAuthorKey    = 644
	keyReportedTCB  = 647
	keyCPUIDFamily  = 648
	keyCPUIDModel   = 649
	keyCommittedTCB = 3329
	keyLaunchTCB    = 3968
)

// The maps and arrays below are those of draft-ietf-rats-corim-11, by the names
// of its CDDL; the numbers are the keys.

// wireCoRIM is a corim-map.
type wireCoRIM struct {
	ID      string      `cbor:"0,keyasint"`
	Tags    []wireBytes `cbor:"1,keyasint"` // each a concise-mid-tag
	Profile wireURI     `cbor:"3,keyasint"`
}

// wireBytes is a tagged-concise-mid-tag: the encoding of a wireCoMID.
type wireBytes []byte

type wireURI string

// wireCoMID is a concise-mid-tag.
type wireCoMID struct {
	Identity wireIdentity `cbor:"1,keyasint"`
	Triples  wireTriples  `cbor:"4,keyasint"`
}

// wireIdentity is a tag-identity-map.
type wireIdentity struct {
	ID      string `cbor:"0,keyasint"`
	Version uint64 `cbor:"1,keyasint"`
}

// wireTriples is a triples-map.
type wireTriples struct {
	References []wireReference `cbor:"0,keyasint"`
}

// wireReference is a reference-triple-record.
type wireReference struct {
	_           struct{} `cbor:",toarray"`
	Environment wireEnvironment
	Claims      []wireMeasurement
}

// wireEnvironment is an environment-map.
type wireEnvironment struct {
	Class wireClass `cbor:"0,keyasint"`
}

// wireClass is a class-map.
type wireClass struct {
	ID wireOID `cbor:"0,keyasint"`
}

type wireOID []byte

// wireMeasurement is a measurement-map.
type wireMeasurement struct {
	Key   uint64     `cbor:"0,keyasint"`
	Value wireValues `cbor:"1,keyasint"`
}

// wireValues is a measurement-values-map, of which one member is there.
type wireValues struct {
	MinSVN  *wireMinSVN  `cbor:"1,keyasint,omitempty"`
	Digests []wireDigest `cbor:"2,keyasint,omitempty"`
	Raw     any          `cbor:"4,keyasint,omitempty"`  // wireRaw or wireMasked
	Int     any          `cbor:"15,keyasint,omitempty"` // uint64 or wireRange
}

type wireMinSVN uint64

// wireDigest is a digest of measured-component's CDDL.
type wireDigest struct {
	_         struct{} `cbor:",toarray"`
	Algorithm uint64
	Value     []byte
}

// wireRaw is tagged-bytes.
type wireRaw []byte

// wireMasked is a tagged-masked-raw-value. Bits that Mask has clear are not
// compared.
type wireMasked struct {
	_     struct{} `cbor:",toarray"`
	Value []byte
	Mask  []byte
}

// wireRange is a tagged-int-range, both ends included.
type wireRange struct {
	_   struct{} `cbor:",toarray"`
	Min uint64
	Max uint64
}

// codec is how CBOR is written and read.
type codec struct {
	cbor.EncMode
	cbor.DecMode
}

// newCodec returns one that writes RFC 8949's core deterministic encoding
// (section 4.2.1), and refuses what is not in the structures above.
var newCodec = sync.OnceValues(func() (codec, error) {
	tags := cbor.NewTagSet()
	required := cbor.TagOptions{EncTag: cbor.EncTagRequired, DecTag: cbor.DecTagRequired}
	for _, t := range []struct {
		number uint64
		value  any
	}{
		{tagURI, wireURI("")},
		{tagOID, wireOID(nil)},
		{tagCoRIM, wireCoRIM{}},
		{tagCoMID, wireBytes(nil)},
		{tagMinSVN, wireMinSVN(0)},
		{tagBytes, wireRaw(nil)},
		{tagMaskedRaw, wireMasked{}},
		{tagIntRange, wireRange{}},
	} {
		if err := tags.Add(required, reflect.TypeOf(t.value), t.number); err != nil {
			return codec{}, err
		}
	}
	enc, err := cbor.CoreDetEncOptions().EncModeWithTags(tags)
	if err != nil {
		return codec{}, err
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, MaxNestedLevels: 16,
	}.DecModeWithTags(tags)
	return codec{enc, dec}, err
})
