package idblock

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"
)

// ErrSignature says that a signature of good form does not hold.
var ErrSignature = errors.New("the signature does not hold")

// Sign authenticates b with the ID key, and the ID key with the author's where
// author is not nil. Keys are of ECDSA on P-384; they may stand in a file or in
// an HSM. What they return is checked before it is returned.
func Sign(b Block, id, author crypto.Signer) (Auth, error) {
	if err := b.Check(); err != nil {
		return Auth{}, err
	}
	var a Auth
	var err error
	block := b.Encode()
	if a.IDKey, a.BlockSignature, err = sign(id, block[:]); err != nil {
		return Auth{}, fmt.Errorf("signing with the ID key: %w", err)
	}
	if author != nil {
		if a.AuthorKey, a.KeySignature, err = sign(author, a.IDKey[:]); err != nil {
			return Auth{}, fmt.Errorf("signing with the author's key: %w", err)
		}
	}
	if err := a.Verify(b); err != nil {
		return Auth{}, fmt.Errorf("a key signs other than its public key says: %w", err)
	}
	return a, nil
}

func sign(key crypto.Signer, message []byte) (PublicKey, Signature, error) {
	public, err := NewPublicKey(key.Public())
	if err != nil {
		return PublicKey{}, Signature{}, err
	}
	digest := sha512.Sum384(message)
	der, err := key.Sign(rand.Reader, digest[:], crypto.SHA384)
	if err != nil {
		return PublicKey{}, Signature{}, err
	}
	s, err := NewSignature(der)
	return public, s, err
}

// Verify checks the signature over the block and, where there is an author's
// key, the one over the ID key, and reports all that do not hold. A signature
// that does not hold wraps ErrSignature.
func (a Auth) Verify(b Block) error {
	block := b.Encode()
	errs := []error{verify("ID_BLOCK_SIG", "the ID key", a.IDKey, a.BlockSignature, block[:])}
	switch {
	case a.HasAuthor():
		errs = append(errs, verify("ID_KEY_SIG", "the author's key", a.AuthorKey, a.KeySignature, a.IDKey[:]))
	case a.KeySignature != Signature{}:
		errs = append(errs, errors.New("ID_KEY_SIG: there is no author's key"))
	}
	return errors.Join(errs...)
}

func verify(field, by string, key PublicKey, s Signature, message []byte) error {
	public, err := key.ECDSA()
	if err != nil {
		return fmt.Errorf("%s: %w", by, err)
	}
	der, err := s.DER()
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	digest := sha512.Sum384(message)
	if !ecdsa.VerifyASN1(public, digest[:], der) {
		return fmt.Errorf("%s: %w under %s %v", field, ErrSignature, by, key.Digest())
	}
	return nil
}
