package tlog

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/kraudcloud/kattest/measure/release"
)

// maxEntries is how many entries of logs a bundle may have: sigstore's own bound.
const maxEntries = 32

// ErrNotLogged says that a bundle has no proof of one of the logs.
var ErrNotLogged = errors.New("it stands in none of the trusted logs")

// Inclusion is where a bundle's signature stands.
type Inclusion struct {
	Log        Log
	Index      int64
	Leaf       Hash
	Checkpoint Checkpoint
}

// Check finds the proof that the key's signature in the bundle stands in one of the
// logs. Every proof of theirs must hold: the entry is the one that bundle and key
// give, and the log signed a checkpoint that covers it. Entries of other logs are
// passed over. The signature itself is release.Verify's to check.
//
// An error is release.ErrSignature where a proof does not hold, and ErrNotLogged as
// well where there is none.
func Check(bundle []byte, key crypto.PublicKey, logs []Log) (Inclusion, error) {
	b, err := release.ParseBundle(bundle)
	if err != nil {
		return Inclusion{}, err
	}
	want, err := Leaf(bundle, key)
	if err != nil {
		return Inclusion{}, err
	}
	entries := b.GetVerificationMaterial().GetTlogEntries()
	if len(entries) > maxEntries {
		return Inclusion{}, fmt.Errorf("tlogEntries: %d, more than %d", len(entries), maxEntries)
	}
	var found *Inclusion
	for i, e := range entries {
		for _, l := range logs {
			if id := l.ID(); !bytes.Equal(e.GetLogId().GetKeyId(), id[:]) {
				continue
			}
			in, err := l.check(e, want)
			if err != nil {
				return Inclusion{}, fmt.Errorf("tlogEntries[%d]: %w: %w", i, release.ErrSignature, err)
			}
			if found == nil {
				found = &in
			}
		}
	}
	if found == nil {
		return Inclusion{}, fmt.Errorf("%w: %w", release.ErrSignature, ErrNotLogged)
	}
	return *found, nil
}

// check checks one proof.
func (l Log) check(e *protorekor.TransparencyLogEntry, want []byte) (Inclusion, error) {
	proof := e.GetInclusionProof()
	switch {
	case e.GetKindVersion().GetKind() != kind || e.GetKindVersion().GetVersion() != version:
		return Inclusion{}, fmt.Errorf("kindVersion: %.100q %.100q, want %s %s", e.GetKindVersion().GetKind(), e.GetKindVersion().GetVersion(), kind, version)
	case !bytes.Equal(e.GetCanonicalizedBody(), want):
		return Inclusion{}, errors.New("canonicalizedBody: it is not about this signature")
	case proof == nil:
		return Inclusion{}, errors.New("inclusionProof: missing")
	case e.GetLogIndex() != proof.GetLogIndex():
		return Inclusion{}, fmt.Errorf("inclusionProof.logIndex: %d, but logIndex is %d", proof.GetLogIndex(), e.GetLogIndex())
	}
	c, err := l.ParseCheckpoint([]byte(proof.GetCheckpoint().GetEnvelope()))
	switch {
	case err != nil:
		return Inclusion{}, fmt.Errorf("inclusionProof.checkpoint: %w", err)
	case proof.GetTreeSize() != c.Size || !bytes.Equal(proof.GetRootHash(), c.Root[:]):
		return Inclusion{}, errors.New("inclusionProof: treeSize and rootHash are not the checkpoint's")
	case e.GetLogIndex() < 0 || e.GetLogIndex() >= c.Size:
		return Inclusion{}, fmt.Errorf("logIndex: %d is not below the checkpoint's %d", e.GetLogIndex(), c.Size)
	}
	var path tlog.RecordProof
	for i, h := range proof.GetHashes() {
		if len(h) != len(Hash{}) {
			return Inclusion{}, fmt.Errorf("inclusionProof.hashes[%d]: %d bytes, want %d", i, len(h), len(Hash{}))
		}
		path = append(path, Hash(h))
	}
	in := Inclusion{Log: l, Index: e.GetLogIndex(), Leaf: tlog.RecordHash(want), Checkpoint: c}
	if err := tlog.CheckRecord(path, c.Size, c.Root, in.Index, in.Leaf); err != nil {
		return Inclusion{}, fmt.Errorf("inclusionProof.hashes: %w", err)
	}
	return in, nil
}

// Attach returns the bundle with the proof that its entry, the leaf, stands at the
// index of the tree.
func (t *Tree) Attach(bundle, leaf []byte, index int64) ([]byte, error) {
	b, err := release.ParseBundle(bundle)
	if err != nil {
		return nil, err
	}
	path, err := tlog.ProveRecord(t.Checkpoint.Size, index, t.hashes)
	if err != nil {
		return nil, fmt.Errorf("proving entry %d of %s: %w", index, t.Log.Origin, err)
	}
	id := t.Log.ID()
	e := &protorekor.TransparencyLogEntry{
		LogIndex:    index,
		LogId:       &protocommon.LogId{KeyId: id[:]},
		KindVersion: &protorekor.KindVersion{Kind: kind, Version: version},
		InclusionProof: &protorekor.InclusionProof{
			LogIndex:   index,
			RootHash:   t.Checkpoint.Root[:],
			TreeSize:   t.Checkpoint.Size,
			Checkpoint: &protorekor.Checkpoint{Envelope: string(t.Checkpoint.Note)},
		},
		CanonicalizedBody: leaf,
	}
	for _, h := range path {
		e.InclusionProof.Hashes = append(e.InclusionProof.Hashes, h[:])
	}
	material := b.GetVerificationMaterial()
	material.TlogEntries = append(material.GetTlogEntries(), e)
	out, err := protojson.Marshal(b)
	if err != nil {
		return nil, err
	}
	return append(out, '\n'), nil
}
