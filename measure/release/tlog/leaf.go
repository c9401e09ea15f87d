package tlog

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/measure/release"
)

// What the log's entries are, by Rekor's names.
// Source: sigstore/rekor-tiles v2, api/proto/rekor/v2.
const (
	kind    = "hashedrekord"
	version = "0.0.2"
)

// maxLeaf is the longest entry of a tile log, in bytes.
// Source: C2SP tlog-tiles, section "Log entries".
const maxLeaf = 1<<16 - 1

// leaf is an entry: who signed what. In canonical JSON it is what the tree's leaf
// hashes.
// Source: sigstore/rekor-tiles v2, api/proto/rekor/v2, Entry and hashedrekord.
type leaf struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		HashedRekord struct {
			Data struct {
				Algorithm string `json:"algorithm"`
				Digest    []byte `json:"digest"`
			} `json:"data"`
			Signature struct {
				Content  []byte `json:"content"`
				Verifier struct {
					KeyDetails string `json:"keyDetails"`
					PublicKey  struct {
						RawBytes []byte `json:"rawBytes"` // DER SubjectPublicKeyInfo
					} `json:"publicKey"`
				} `json:"verifier"`
			} `json:"signature"`
		} `json:"hashedRekordV002"`
	} `json:"spec"`
}

// ErrKey says that what a key signs is not for a log: an Ed25519 key's, which signs
// the data and not its digest.
var ErrKey = errors.New("no log takes what this kind of key signs")

// Leaf returns the entry of a bundle that the key signed, which is not checked.
func Leaf(bundle []byte, key crypto.PublicKey) ([]byte, error) {
	b, err := release.ParseBundle(bundle)
	if err != nil {
		return nil, err
	}
	if b.GetVerificationMaterial().GetPublicKey() == nil {
		return nil, fmt.Errorf("%w: it is signed by a certificate, not by a key", release.ErrSignature)
	}
	if _, ok := key.(ed25519.PublicKey); ok {
		return nil, fmt.Errorf("%w: Ed25519; ECDSA and RSA will do", ErrKey)
	}
	algorithm, err := signature.GetDefaultAlgorithmDetails(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	envelope := b.GetDsseEnvelope()
	hash := algorithm.GetHashType().New()
	hash.Write(release.PAE(envelope.GetPayloadType(), envelope.GetPayload()))

	l := leaf{APIVersion: version, Kind: kind}
	record := &l.Spec.HashedRekord
	record.Data.Algorithm = algorithm.GetProtoHashType().String()
	record.Data.Digest = hash.Sum(nil)
	record.Signature.Content = envelope.GetSignatures()[0].GetSig()
	record.Signature.Verifier.KeyDetails = algorithm.GetSignatureAlgorithm().String()
	record.Signature.Verifier.PublicKey.RawBytes = der
	data, err := strictjson.Canonical(l)
	if err != nil {
		return nil, err
	}
	if len(data) > maxLeaf {
		return nil, fmt.Errorf("entry: %d bytes, more than %d", len(data), maxLeaf)
	}
	return data, nil
}

// Entry is what a log holds at an index. Nothing vouches for what it says but that
// it stands there.
type Entry struct {
	Index int64
	Hash  Hash   // of the leaf
	Key   []byte // DER SubjectPublicKeyInfo of who signed
	// Digest of what was signed, by Algorithm, such as SHA2_256.
	Digest    []byte
	Algorithm string
}

// parseEntry reads an entry, and leaves out what it is about where it is of another
// kind than ours.
func parseEntry(index int64, hash Hash, data []byte) Entry {
	e := Entry{Index: index, Hash: hash}
	var l leaf
	if strictjson.Decode(data, &l) == nil && l.Kind == kind && l.APIVersion == version {
		record := l.Spec.HashedRekord
		e.Key, e.Digest, e.Algorithm = record.Signature.Verifier.PublicKey.RawBytes, record.Data.Digest, record.Data.Algorithm
	}
	return e
}
