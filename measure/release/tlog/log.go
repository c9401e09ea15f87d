// Package tlog is a publisher's own transparency log: a Merkle tree over what its
// keys signed, as static files that anyone may serve (C2SP's tlog-tiles), with
// signed checkpoints. A bundle carries the proof that it stands in the log, in the
// form of sigstore's Rekor v2, so that any verifier of bundles can check it offline.
//
// A proof says that whoever watches the log can see the signature, not that the
// signature is wanted, and not when it was made. It holds under one checkpoint; that
// the log shows the same to all is for Monitor to find out. Adding is package store's.
package tlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Hash is a SHA-256 of the tree.
type Hash = tlog.Hash

// Log is a log by its name and its key.
type Log struct {
	Origin string // a host name, see CheckOrigin
	Key    ed25519.PublicKey
}

// ID is by which a bundle names the log: SHA-256 over origin, line feed, 0x01 and
// the key's 32 bytes, of which a signed note's key ID is the beginning.
// Source: C2SP signed-note, sections "Signatures" and "Signature types".
func (l Log) ID() [sha256.Size]byte {
	return sha256.Sum256(append([]byte(l.Origin+"\n\x01"), l.Key...))
}

func (l Log) verifier() (note.Verifier, error) {
	text, err := note.NewEd25519VerifierKey(l.Origin, l.Key)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(text)
}

// CheckOrigin says what is wrong with an origin. Verifiers of sigstore take it from
// an address, so that it is a host name in lower case, without scheme, port or path.
func CheckOrigin(origin string) error {
	u, err := url.Parse("https://" + origin)
	if err != nil || origin == "" || u.Hostname() != origin || strings.ToLower(origin) != origin || strings.ContainsAny(origin, "+ \t\n") || len(origin) > 253 {
		return fmt.Errorf("origin %.300q is not a host name in lower case, such as log.example.org", origin)
	}
	return nil
}

// MaxTrustedRoot is the largest trusted root that is read, in bytes.
const MaxTrustedRoot = 4 << 20

const trustedRootType = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"

// TrustedRoot returns the log as sigstore's verifiers are told of it, JSON of media
// type application/vnd.dev.sigstore.trustedroot+json;version=0.1.
func (l Log) TrustedRoot(since time.Time) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(l.Key)
	if err != nil {
		return nil, err
	}
	id := l.ID()
	validity := &protocommon.TimeRange{Start: timestamppb.New(since)}
	text, err := protojson.MarshalOptions{Multiline: true}.Marshal(&prototrustroot.TrustedRoot{
		MediaType: trustedRootType,
		Tlogs: []*prototrustroot.TransparencyLogInstance{{
			BaseUrl:       "https://" + l.Origin,
			HashAlgorithm: protocommon.HashAlgorithm_SHA2_256,
			PublicKey: &protocommon.PublicKey{
				RawBytes: der, KeyDetails: protocommon.PublicKeyDetails_PKIX_ED25519, ValidFor: validity,
			},
			LogId: &protocommon.LogId{KeyId: id[:]},
		}},
	})
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

// ParseTrustedRoot returns the logs of a trusted root that this package can check:
// those with an Ed25519 key. One at least must be there. Authorities and logs of
// other kinds are not looked at.
func ParseTrustedRoot(data []byte) ([]Log, error) {
	logs, err := parseTrustedRoot(data)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	return logs, nil
}

func parseTrustedRoot(data []byte) ([]Log, error) {
	if len(data) > MaxTrustedRoot {
		return nil, fmt.Errorf("%d bytes, more than %d", len(data), MaxTrustedRoot)
	}
	var root prototrustroot.TrustedRoot
	if err := protojson.Unmarshal(data, &root); err != nil {
		return nil, err
	}
	var logs []Log
	for i, t := range root.GetTlogs() {
		if t.GetPublicKey().GetKeyDetails() != protocommon.PublicKeyDetails_PKIX_ED25519 {
			continue
		}
		l, err := parseInstance(t)
		if err != nil {
			return nil, fmt.Errorf("tlogs[%d]: %w", i, err)
		}
		logs = append(logs, l)
	}
	if len(logs) == 0 {
		return nil, errors.New("tlogs: none with an Ed25519 key")
	}
	return logs, nil
}

func parseInstance(t *prototrustroot.TransparencyLogInstance) (Log, error) {
	key, err := x509.ParsePKIXPublicKey(t.GetPublicKey().GetRawBytes())
	if err != nil {
		return Log{}, fmt.Errorf("publicKey.rawBytes: %w", err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return Log{}, fmt.Errorf("publicKey.rawBytes: %T, want Ed25519", key)
	}
	_, origin, _ := strings.Cut(t.GetBaseUrl(), "://")
	l := Log{Origin: origin, Key: public}
	if err := CheckOrigin(origin); err != nil {
		return Log{}, fmt.Errorf("baseUrl: %w", err)
	}
	if id := l.ID(); string(id[:]) != string(t.GetLogId().GetKeyId()) {
		return Log{}, fmt.Errorf("logId.keyId: %x, but origin and key give %x", t.GetLogId().GetKeyId(), id)
	}
	return l, nil
}

// maxSize bounds the entries of a log.
const maxSize = 1 << 40

// maxCheckpoint bounds a signed checkpoint, in bytes.
const maxCheckpoint = 64 << 10

// Checkpoint is a tree that the log vouches for.
type Checkpoint struct {
	Size int64 // entries
	Root Hash
	Note []byte // what is signed, and by whom: C2SP's tlog-checkpoint
}

// ErrCheckpoint says that something is no checkpoint that the log signed.
var ErrCheckpoint = errors.New("not a checkpoint of the log")

// ParseCheckpoint reads a checkpoint, which the log must have signed. Every error is
// ErrCheckpoint.
func (l Log) ParseCheckpoint(signed []byte) (Checkpoint, error) {
	c, err := l.parseCheckpoint(signed)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w %s: %w", ErrCheckpoint, l.Origin, err)
	}
	return c, nil
}

func (l Log) parseCheckpoint(signed []byte) (Checkpoint, error) {
	if len(signed) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("%d bytes, more than %d", len(signed), maxCheckpoint)
	}
	verifier, err := l.verifier()
	if err != nil {
		return Checkpoint{}, err
	}
	c, _, _, err := log.ParseCheckpoint(signed, l.Origin, verifier)
	switch {
	case err != nil:
		return Checkpoint{}, err
	case c.Size > maxSize:
		return Checkpoint{}, fmt.Errorf("%d entries, more than %d", c.Size, int64(maxSize))
	case len(c.Hash) != len(Hash{}):
		return Checkpoint{}, fmt.Errorf("a root of %d bytes, want %d", len(c.Hash), len(Hash{}))
	}
	return Checkpoint{Size: int64(c.Size), Root: Hash(c.Hash), Note: signed}, nil
}
