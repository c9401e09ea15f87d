package idblock

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// AuthSize is the size of what authenticates an ID block, in bytes.
const AuthSize = 4096

// algoECDSAP384 is ECDSA on P-384 with SHA-384, the only algorithm there is.
// Source: AMD 56860, chapter 10.
const algoECDSAP384 = 1

// Offsets in an ID authentication information structure.
const (
	offsetAlgo      = 0x000
	offsetBlockSig  = 0x040
	offsetIDKey     = 0x240
	offsetKeySig    = 0x680
	offsetAuthorKey = 0x880
)

// Auth authenticates an ID block: the ID key signs the block, and the author's
// key, where there is one, signs the ID key.
type Auth struct {
	BlockSignature Signature
	IDKey          PublicKey
	KeySignature   Signature // zero without an author
	AuthorKey      PublicKey // zero without an author
}

// HasAuthor says whether an author's key signs the ID key.
func (a Auth) HasAuthor() bool { return a.AuthorKey != PublicKey{} }

// ParseAuth reads an ID authentication information structure. It checks
// algorithms, curves, points, scalars and that what is reserved is zero, but no
// signature: see Verify.
//
// Source: AMD 56860, SNP_LAUNCH_FINISH, ID Authentication Information
// Structure. Whether there is an author's key is not in it but in the command
// (AUTHOR_KEY_EN), so that we take it from AUTHOR_KEY_ALGO: 0 is none.
//
//	offset  size  field
//	0x000   4     ID_KEY_ALGO, 1
//	0x004   4     AUTHOR_KEY_ALGO, 1; 0 without an author
//	0x008   56    reserved
//	0x040   512   ID_BLOCK_SIG, by the ID key over the 96 bytes of the ID block
//	0x240   1028  ID_KEY
//	0x644   60    reserved
//	0x680   512   ID_KEY_SIG, by the author's key over the 1028 bytes of ID_KEY
//	0x880   1028  AUTHOR_KEY
//	0xc84   892   reserved
func ParseAuth(data []byte) (Auth, error) {
	if len(data) != AuthSize {
		return Auth{}, fmt.Errorf("ID auth: %d bytes, want %d", len(data), AuthSize)
	}
	a := Auth{
		BlockSignature: Signature(data[offsetBlockSig:]),
		IDKey:          PublicKey(data[offsetIDKey:]),
		KeySignature:   Signature(data[offsetKeySig:]),
		AuthorKey:      PublicKey(data[offsetAuthorKey:]),
	}
	errs := []error{zero(data, 0x008, 0x040), zero(data, 0x644, 0x680), zero(data, 0xc84, AuthSize)}
	if algo := binary.LittleEndian.Uint32(data[offsetAlgo:]); algo != algoECDSAP384 {
		errs = append(errs, fmt.Errorf("ID_KEY_ALGO (bytes 0x000 to 0x003): %d, want %d (ECDSA P-384 with SHA-384)", algo, algoECDSAP384))
	}
	errs = append(errs, checkSignature("ID_BLOCK_SIG", offsetBlockSig, a.BlockSignature), checkKey("ID_KEY", offsetIDKey, a.IDKey))
	switch algo := binary.LittleEndian.Uint32(data[offsetAlgo+4:]); algo {
	case 0:
		if a.KeySignature != (Signature{}) || a.AuthorKey != (PublicKey{}) {
			errs = append(errs, errors.New("AUTHOR_KEY_ALGO (bytes 0x004 to 0x007): 0, but there is an ID_KEY_SIG or AUTHOR_KEY"))
		}
	case algoECDSAP384:
		errs = append(errs, checkSignature("ID_KEY_SIG", offsetKeySig, a.KeySignature), checkKey("AUTHOR_KEY", offsetAuthorKey, a.AuthorKey))
	default:
		errs = append(errs, fmt.Errorf("AUTHOR_KEY_ALGO (bytes 0x004 to 0x007): %d, want %d (ECDSA P-384 with SHA-384), or 0 for none", algo, algoECDSAP384))
	}
	if err := errors.Join(errs...); err != nil {
		return Auth{}, fmt.Errorf("ID auth: %w", err)
	}
	return a, nil
}

func checkSignature(name string, offset int, s Signature) error {
	if _, err := s.DER(); err != nil {
		return fmt.Errorf("%s (bytes 0x%03x to 0x%03x): %w", name, offset, offset+SignatureSize-1, err)
	}
	return nil
}

func checkKey(name string, offset int, k PublicKey) error {
	if _, err := k.ECDSA(); err != nil {
		return fmt.Errorf("%s (bytes 0x%03x to 0x%03x): %w", name, offset, offset+KeySize-1, err)
	}
	return nil
}

// Encode returns the structure as the firmware reads it.
func (a Auth) Encode() [AuthSize]byte {
	var data [AuthSize]byte
	le := binary.LittleEndian
	le.PutUint32(data[offsetAlgo:], algoECDSAP384)
	if a.HasAuthor() {
		le.PutUint32(data[offsetAlgo+4:], algoECDSAP384)
	}
	copy(data[offsetBlockSig:], a.BlockSignature[:])
	copy(data[offsetIDKey:], a.IDKey[:])
	copy(data[offsetKeySig:], a.KeySignature[:])
	copy(data[offsetAuthorKey:], a.AuthorKey[:])
	return data
}
