// Package secrets is how an owner hands a guest what its workload waits for: sealed
// to a key that this boot of the guest made and its evidence binds, and signed by a
// key that the launch spec names. The format is documented in docs/spec/secrets.md.
//
// It does not look at whether the guest is to be trusted: whoever seals has judged
// the guest's evidence before. Nor does it keep secrets out of the memory of what
// calls it.
package secrets

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/internal/strictjson"
)

// MediaType names this version of the format.
const MediaType = "application/vnd.kattest.secrets.v1+json"

// Path is the path to which it is sent (POST).
const Path = "/v1/secrets"

// KeyEvent is the event of the guest's log that names its key: base64 of what
// Key.Public returns.
const KeyEvent = "sealing-key"

// Bounds, in bytes.
const (
	MaxSize = 1 << 20 // of a message
	// MaxTotal is the most that the secrets of a message have together.
	MaxTotal = 512 << 10
)

// domain separates what an owner signs, and what is sealed, from any other use of
// the keys.
const domain = "kattest secrets v1"

// What seals: RFC 9180, with the KEM of draft-connolly-cfrg-xwing-kem, which holds
// while either X25519 or ML-KEM-768 does: what a host records today, it keeps.
func kem() hpke.KEM   { return hpke.MLKEM768X25519() }
func kdf() hpke.KDF   { return hpke.HKDFSHA256() }
func aead() hpke.AEAD { return hpke.AES256GCM() }

// PublicKeySize is the size of a guest's public key, in bytes.
const PublicKeySize = 1216

// Key is a guest's, made at this boot.
type Key struct{ private hpke.PrivateKey }

// NewKey makes a key.
func NewKey() (Key, error) {
	private, err := kem().GenerateKey()
	return Key{private}, err
}

// Public returns the public key, PublicKeySize bytes.
func (k Key) Public() []byte { return k.private.PublicKey().Bytes() }

// Secret is one that is handed over.
type Secret struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
	// Format is for a volume's key: its owner wants a blank disk to become a volume.
	Format bool `json:"format,omitempty"`
}

// message is what crosses.
type message struct {
	MediaType string `json:"mediaType"`
	Recipient []byte `json:"recipient"` // SHA-256 of the guest's public key
	Sealed    []byte `json:"sealed"`    // encapsulated key, then ciphertext
	Owner     []byte `json:"owner"`     // DER SubjectPublicKeyInfo
	Signature []byte `json:"signature"`
}

// sealed is what is in it.
type sealed struct {
	Secrets []Secret `json:"secrets"`
}

// info binds what is sealed to the guest's workload.
func info(hostData [32]byte) []byte { return append([]byte(domain+"\x00"), hostData[:]...) }

// signed is what an owner signs: domain, the recipient's digest, HOST_DATA and what is
// sealed, each preceded by its length in bytes as a 32-bit little-endian number.
func signed(recipient []byte, hostData [32]byte, box []byte) []byte {
	var b []byte
	for _, field := range [][]byte{[]byte(domain), recipient, hostData[:], box} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(field)))
		b = append(b, field...)
	}
	return b
}

// Seal returns the message that hands secrets to the guest with that public key,
// whose workload HOST_DATA names. The owner's key is ECDSA's (P-256 with SHA-256,
// P-384 with SHA-384) or Ed25519's.
func Seal(guest []byte, hostData [32]byte, all []Secret, owner crypto.Signer) ([]byte, error) {
	message, err := seal(guest, hostData, all, owner)
	if err != nil {
		return nil, fmt.Errorf("sealing secrets: %w", err)
	}
	return message, nil
}

func seal(guest []byte, hostData [32]byte, all []Secret, owner crypto.Signer) ([]byte, error) {
	if err := check(all); err != nil {
		return nil, err
	}
	public, err := kem().NewPublicKey(guest)
	if err != nil {
		return nil, fmt.Errorf("the guest's key: %w", err)
	}
	plain, err := json.Marshal(sealed{all})
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	box, err := hpke.Seal(public, kdf(), aead(), info(hostData), plain)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(owner.Public())
	if err != nil {
		return nil, fmt.Errorf("the owner's key: %w", err)
	}
	recipient := sha256.Sum256(guest)
	signature, err := sign(owner, signed(recipient[:], hostData, box))
	if err != nil {
		return nil, fmt.Errorf("the owner's key: %w", err)
	}
	return json.Marshal(message{MediaType, recipient[:], box, der, signature})
}

// What is wrong with a message that a guest got.
var (
	ErrForm      = errors.New("not a message of secrets")
	ErrOwner     = errors.New("not signed by an owner that the launch spec names")
	ErrRecipient = errors.New("for another guest, or another boot of this one")
)

// Open returns the secrets of a message, which one of the owners must have signed for
// this key and workload, and by whom. Whether they are those that are expected is
// Match's to say. An error is one of those above.
func (k Key) Open(data []byte, hostData [32]byte, owners []pod.Hash) (all []Secret, by pod.Hash, err error) {
	all, by, err = k.open(data, hostData, owners)
	if err != nil {
		return nil, pod.Hash{}, fmt.Errorf("secrets: %w", err)
	}
	return all, by, nil
}

func (k Key) open(data []byte, hostData [32]byte, owners []pod.Hash) ([]Secret, pod.Hash, error) {
	var none pod.Hash
	if len(data) > MaxSize {
		return nil, none, fmt.Errorf("%w: %d bytes, more than %d", ErrForm, len(data), MaxSize)
	}
	var m message
	if err := strictjson.Decode(data, &m); err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if m.MediaType != MediaType {
		return nil, none, fmt.Errorf("%w: mediaType: %.80q, want %q", ErrForm, m.MediaType, MediaType)
	}
	by := pod.Hash(sha256.Sum256(m.Owner))
	if !slices.Contains(owners, by) {
		return nil, none, fmt.Errorf("%w: it is by %s", ErrOwner, by)
	}
	if err := verify(m.Owner, signed(m.Recipient, hostData, m.Sealed), m.Signature); err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrOwner, err)
	}
	if self := sha256.Sum256(k.Public()); string(m.Recipient) != string(self[:]) {
		return nil, none, fmt.Errorf("%w: it is for %x", ErrRecipient, m.Recipient)
	}
	plain, err := hpke.Open(k.private, kdf(), aead(), info(hostData), m.Sealed)
	if err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrRecipient, err)
	}
	defer clear(plain)
	var s sealed
	if strictjson.Decode(plain, &s) != nil {
		return nil, none, fmt.Errorf("%w: what is in it", ErrForm) // an error could quote a secret
	}
	if err := check(s.Secrets); err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrForm, err)
	}
	return s.Secrets, by, nil
}

// check bounds secrets; their names are the launch spec's to judge.
func check(all []Secret) error {
	if len(all) == 0 || len(all) > pod.MaxSecrets {
		return fmt.Errorf("%d secrets, want 1 to %d", len(all), pod.MaxSecrets)
	}
	total := 0
	for i, s := range all {
		if len(s.Value) == 0 || len(s.Value) > pod.MaxSecret {
			return fmt.Errorf("secret %.80q: %d bytes, want 1 to %d", s.Name, len(s.Value), pod.MaxSecret)
		}
		if slices.ContainsFunc(all[:i], func(other Secret) bool { return other.Name == s.Name }) {
			return fmt.Errorf("secret %.80q stands twice", s.Name)
		}
		total += len(s.Value)
	}
	if total > MaxTotal {
		return fmt.Errorf("%d bytes of secrets, more than %d", total, MaxTotal)
	}
	return nil
}

// Match says what is wrong with secrets for a workload that expects others: all of
// those must be there, and no other.
func Match(spec pod.Spec, all []Secret) error {
	if spec.Secrets == nil {
		return errors.New("the launch spec expects no secrets")
	}
	volumes := map[string]bool{}
	for _, m := range spec.Volumes() {
		volumes[m.Key] = true
	}
	expected := map[string]pod.Secret{}
	for _, e := range spec.Secrets.Expects {
		expected[e.Name] = e
	}
	var errs []error
	for _, s := range all {
		e, ok := expected[s.Name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("secret %.80q: the launch spec expects none of that name", s.Name))
		case s.Format && !volumes[s.Name]:
			errs = append(errs, fmt.Errorf("secret %q: it is no volume's key, of which a volume could be made", s.Name))
		case e.Env != "" && slices.Contains(s.Value, 0):
			errs = append(errs, fmt.Errorf("secret %q: a NUL cannot stand in a variable", s.Name))
		}
		delete(expected, s.Name)
	}
	for _, e := range spec.Secrets.Expects {
		if _, missing := expected[e.Name]; missing {
			errs = append(errs, fmt.Errorf("secret %q: missing", e.Name))
		}
	}
	return errors.Join(errs...)
}

// CheckOwner says whether the spec takes secrets that the key signs.
func CheckOwner(spec pod.Spec, key crypto.PublicKey) error {
	if spec.Secrets == nil {
		return errors.New("the launch spec expects no secrets")
	}
	if _, err := hashOf(key); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return err
	}
	if by := pod.Hash(sha256.Sum256(der)); !slices.Contains(spec.Secrets.Owners, by) {
		return fmt.Errorf("%w: it is %s", ErrOwner, by)
	}
	return nil
}

func sign(key crypto.Signer, text []byte) ([]byte, error) {
	hash, err := hashOf(key.Public())
	if err != nil {
		return nil, err
	}
	return key.Sign(rand.Reader, digest(hash, text), hash)
}

func verify(der, text, signature []byte) error {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return err
	}
	hash, err := hashOf(key)
	if err != nil {
		return err
	}
	ok := false
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, digest(hash, text), signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, text, signature)
	}
	if !ok {
		return errors.New("the signature does not hold")
	}
	return nil
}

// hashOf is the hash with which a key signs, 0 for Ed25519's, which sign the text.
func hashOf(key crypto.PublicKey) (crypto.Hash, error) {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return 0, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return crypto.SHA256, nil
		case elliptic.P384():
			return crypto.SHA384, nil
		}
	}
	return 0, fmt.Errorf("%T: want ECDSA on P-256 or P-384, or Ed25519", key)
}

func digest(hash crypto.Hash, text []byte) []byte {
	if hash == 0 {
		return text
	}
	h := hash.New()
	h.Write(text)
	return h.Sum(nil)
}
