package tlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Where a log's files are, and how large a tile is.
// Source: C2SP tlog-tiles, sections "Checkpoints", "Merkle Tree" and "Log entries".
const (
	CheckpointPath = "checkpoint"
	tileHeight     = 8
	tileWidth      = 1 << tileHeight // hashes, or entries
	maxBundle      = tileWidth * (2 + maxLeaf)
)

// maxTiles bounds the tiles that a tree keeps, each of at most 8192 bytes.
const maxTiles = 1024

// Tree is a log as far as one checkpoint covers it. Every hash that it gives was
// found to lead to the checkpoint's root.
type Tree struct {
	Log        Log
	Checkpoint Checkpoint
	source     Source
	hashes     tlog.HashReader
}

// OpenTree reads the log's checkpoint.
func OpenTree(ctx context.Context, source Source, log Log) (*Tree, error) {
	signed, err := source.Read(ctx, CheckpointPath, maxCheckpoint)
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint of %s: %w", log.Origin, err)
	}
	c, err := log.ParseCheckpoint(signed)
	if err != nil {
		return nil, err
	}
	return NewTree(ctx, source, log, c), nil
}

// NewTree returns the log as a checkpoint covers it that is known already.
func NewTree(ctx context.Context, source Source, log Log, c Checkpoint) *Tree {
	tiles := &tiles{ctx: ctx, source: source, kept: map[tlog.Tile][]byte{}}
	return &Tree{log, c, source, tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: c.Root}, tiles)}
}

// Root returns the root of the tree when it had that many entries.
func (t *Tree) Root(size int64) (Hash, error) {
	if size < 0 || size > t.Checkpoint.Size {
		return Hash{}, fmt.Errorf("%s has %d entries, less than %d", t.Log.Origin, t.Checkpoint.Size, size)
	}
	root, err := tlog.TreeHash(size, t.hashes)
	if err != nil {
		return Hash{}, fmt.Errorf("the first %d entries of %s: %w", size, t.Log.Origin, checked(err))
	}
	return root, nil
}

// Leaves calls each with the hashes of the entries from an index on, in their order.
func (t *Tree) Leaves(from int64, each func(index int64, hash Hash) error) error {
	for from < t.Checkpoint.Size {
		end := min(t.Checkpoint.Size, from/tileWidth*tileWidth+tileWidth)
		hashes, err := t.leaves(from, end)
		if err != nil {
			return err
		}
		for i, h := range hashes {
			if err := each(from+int64(i), h); err != nil {
				return err
			}
		}
		from = end
	}
	return nil
}

// leaves returns hashes of one tile.
func (t *Tree) leaves(from, end int64) ([]Hash, error) {
	var indexes []int64
	for i := from; i < end; i++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, i))
	}
	hashes, err := t.hashes.ReadHashes(indexes)
	if err != nil {
		return nil, fmt.Errorf("entries %d to %d of %s: %w", from, end-1, t.Log.Origin, checked(err))
	}
	return hashes, nil
}

// Entries calls each with the entries from an index on, in their order.
func (t *Tree) Entries(ctx context.Context, from int64, each func(Entry) error) error {
	for from < t.Checkpoint.Size {
		first := from / tileWidth * tileWidth
		end := min(t.Checkpoint.Size, first+tileWidth)
		hashes, err := t.leaves(from, end)
		if err != nil {
			return err
		}
		tile := tlog.Tile{H: tileHeight, L: -1, N: first / tileWidth, W: int(end - first)}
		data, err := readTile(ctx, t.source, tile, maxBundle)
		if err != nil {
			return fmt.Errorf("entries %d to %d of %s: %w", first, end-1, t.Log.Origin, err)
		}
		for index := first; index < end; index++ {
			one, rest, err := cutEntry(data)
			if err != nil {
				return fmt.Errorf("%s: [%d]: %w: %w", tilePath(tile), index-first, errInconsistent, err)
			}
			data = rest
			if index < from {
				continue
			}
			hash := hashes[index-from]
			if tlog.RecordHash(one) != hash {
				return fmt.Errorf("%s: [%d]: it is not what the tree has at index %d: %w", tilePath(tile), index-first, index, errInconsistent)
			}
			if err := each(parseEntry(index, hash, one)); err != nil {
				return err
			}
		}
		from = end
	}
	return nil
}

// errInconsistent says that the log does not show the tree of its checkpoint.
var errInconsistent = errors.New("inconsistent with the checkpoint")

// readError is a source's: nothing is known of what it has.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// checked is the error of x/mod's reader, which has no type for hashes that do not
// lead to the root: what is not a failure to read is that.
func checked(err error) error {
	if _, failed := errors.AsType[readError](err); failed || errors.Is(err, errInconsistent) {
		return err
	}
	return fmt.Errorf("%w: %w", errInconsistent, err)
}

// cutEntry takes one entry off a bundle of them: 16 bits of length, big-endian, and
// so many bytes.
func cutEntry(data []byte) (entry, rest []byte, err error) {
	if len(data) < 2 {
		return nil, nil, fmt.Errorf("cut off: %d bytes for a length of 2", len(data))
	}
	n := 2 + int(binary.BigEndian.Uint16(data))
	if len(data) < n {
		return nil, nil, fmt.Errorf("cut off: %d bytes for an entry of %d", len(data)-2, n-2)
	}
	return data[2:n], data[n:], nil
}

// tiles reads hashes for x/mod's reader, which checks them.
type tiles struct {
	ctx    context.Context //nolint:containedctx // the interface has none
	source Source
	kept   map[tlog.Tile][]byte // that were checked
}

// Height is that of all tiles.
func (t *tiles) Height() int { return tileHeight }

// ReadTiles reads tiles, of which nothing is known.
func (t *tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(want))
	for i, tile := range want {
		if all[i] = t.kept[tile]; all[i] != nil {
			continue
		}
		data, err := readTile(t.ctx, t.source, tile, tileWidth*int64(len(Hash{})))
		if err != nil {
			return nil, err
		}
		n := tile.W * len(Hash{})
		if len(data) < n {
			return nil, fmt.Errorf("%s: %d bytes, want %d: %w", tilePath(tile), len(data), n, errInconsistent)
		}
		all[i] = data[:n]
	}
	return all, nil
}

// SaveTiles keeps what was checked.
func (t *tiles) SaveTiles(checked []tlog.Tile, data [][]byte) {
	if len(t.kept)+len(checked) > maxTiles {
		clear(t.kept)
	}
	for i, tile := range checked {
		t.kept[tile] = data[i]
	}
}

// readTile reads a tile, or the whole one where the log has dropped the part of it.
func readTile(ctx context.Context, source Source, tile tlog.Tile, limit int64) ([]byte, error) {
	data, err := source.Read(ctx, tilePath(tile), limit)
	if errors.Is(err, fs.ErrNotExist) && tile.W < tileWidth {
		tile.W = tileWidth
		data, err = source.Read(ctx, tilePath(tile), limit)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errTooLong):
		return nil, fmt.Errorf("%w: %w", errInconsistent, err)
	case err != nil:
		return nil, readError{err}
	}
	return data, nil
}

// tilePath is the path of a tile, for which x/mod's log has another folder.
func tilePath(t tlog.Tile) string {
	path := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", tileHeight))
	if entries, ok := strings.CutPrefix(path, "data/"); ok {
		path = "entries/" + entries
	}
	return "tile/" + path
}
