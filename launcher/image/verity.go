package image

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/kraudcloud/kattest/guest/pod"
)

// digestsPerBlock is how many digests a block of the dm-verity tree holds.
const digestsPerBlock = blockSize / sha256.Size

// verityWriter writes a file system of known size and the dm-verity tree behind
// it, hashing the blocks as they pass. What it holds does not depend on the size.
//
// The tree: each block's digest is SHA-256 of salt and block; 128 digests fill
// a block of the level above, the rest of which is zero; the root hash is the
// only digest of the top level's only block. The top level stands first.
// Source: Linux 6.12, Documentation/admin-guide/device-mapper/verity.rst.
type verityWriter struct {
	f      io.WriterAt
	salt   pod.Hash
	blocks int64
	levels []level // the lowest first

	buf     []byte
	n       int
	spare   []byte
	offset  int64 // of buf
	running *errgroup.Group
	digests [bufBlocks]pod.Hash // of the blocks that are being hashed
	pending int                 // how many those are
}

// level is one of the tree's, with the block that is being filled.
type level struct {
	offset int64 // of that block
	block  [blockSize]byte
	n      int // digests in it
}

// bufBlocks is how many blocks are hashed and written at a time, by hashers in
// parallel.
const (
	bufBlocks = 256
	hashers   = 2
)

func newVerityWriter(f io.WriterAt, salt pod.Hash, blocks int64) *verityWriter {
	w := &verityWriter{
		f: f, salt: salt, blocks: blocks,
		buf: make([]byte, bufBlocks*blockSize), spare: make([]byte, bufBlocks*blockSize), running: &errgroup.Group{},
	}
	var sizes []int64
	for n := blocks; n > 1; {
		n = (n + digestsPerBlock - 1) / digestsPerBlock
		sizes = append(sizes, n)
	}
	w.levels = make([]level, len(sizes))
	offset := blocks * blockSize
	for i := len(sizes) - 1; i >= 0; i-- {
		w.levels[i].offset = offset
		offset += sizes[i] * blockSize
	}
	return w
}

// Write implements io.Writer.
func (w *verityWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := copy(w.buf[w.n:], p)
		w.n, written, p = w.n+n, written+n, p[n:]
		if err := w.flushFull(); err != nil {
			return written, err
		}
	}
	return written, nil
}

// ReadFrom implements io.ReaderFrom.
func (w *verityWriter) ReadFrom(r io.Reader) (int64, error) {
	var read int64
	for {
		n, err := r.Read(w.buf[w.n:])
		w.n, read = w.n+n, read+int64(n)
		if errors.Is(err, io.EOF) {
			return read, w.flushFull()
		}
		if err = errors.Join(err, w.flushFull()); err != nil {
			return read, err
		}
	}
}

func (w *verityWriter) flushFull() error {
	if w.n < len(w.buf) {
		return nil
	}
	return w.flush()
}

// flush begins to write and hash what is in buf, when it is done with what was
// there before.
func (w *verityWriter) flush() error {
	if err := w.wait(); err != nil {
		return err
	}
	if w.n%blockSize != 0 {
		return fmt.Errorf("%d bytes are no whole blocks", w.offset+int64(w.n))
	}
	full, offset := w.buf[:w.n], w.offset
	w.buf, w.spare = w.spare, w.buf
	w.offset, w.n, w.pending = offset+int64(len(full)), 0, len(full)/blockSize
	w.running.Go(func() error {
		_, err := w.f.WriteAt(full, offset)
		return err
	})
	for i := range hashers {
		w.running.Go(func() error {
			for b := i; b < len(full)/blockSize; b += hashers {
				w.digests[b] = w.hash(full[b*blockSize : (b+1)*blockSize])
			}
			return nil
		})
	}
	return nil
}

// wait ends what flush has begun, and puts the digests into the tree.
func (w *verityWriter) wait() error {
	if err := w.running.Wait(); err != nil {
		return err
	}
	w.running = &errgroup.Group{}
	for _, digest := range w.digests[:w.pending] {
		if err := w.add(0, digest); err != nil {
			return err
		}
	}
	w.pending = 0
	return nil
}

func (w *verityWriter) hash(block []byte) (sum pod.Hash) {
	h := sha256.New()
	h.Write(w.salt[:])
	h.Write(block)
	h.Sum(sum[:0])
	return sum
}

// add puts a digest into level i; a block that is full goes to the file, and
// its digest into the level above.
func (w *verityWriter) add(i int, digest pod.Hash) error {
	l := &w.levels[i]
	copy(l.block[l.n*sha256.Size:], digest[:])
	l.n++
	if l.n < digestsPerBlock {
		return nil
	}
	return w.put(i)
}

func (w *verityWriter) put(i int) error {
	l := &w.levels[i]
	if _, err := w.f.WriteAt(l.block[:], l.offset); err != nil {
		return err
	}
	digest := w.hash(l.block[:])
	l.offset += blockSize
	clear(l.block[:])
	l.n = 0
	if i+1 == len(w.levels) {
		copy(l.block[:], digest[:])
		return nil
	}
	return w.add(i+1, digest)
}

// finish writes what is left and returns what opens the device.
func (w *verityWriter) finish() (pod.Verity, error) {
	if err := w.flush(); err != nil {
		return pod.Verity{}, err
	}
	if err := w.wait(); err != nil {
		return pod.Verity{}, err
	}
	if w.offset != w.blocks*blockSize || len(w.levels) == 0 {
		return pod.Verity{}, fmt.Errorf("%d bytes were written, want %d blocks, and two at least", w.offset, w.blocks)
	}
	for i := range w.levels {
		if w.levels[i].n > 0 {
			if err := w.put(i); err != nil {
				return pod.Verity{}, err
			}
		}
	}
	top := w.levels[len(w.levels)-1]
	v := pod.Verity{Salt: w.salt, DataBlocks: uint64(w.blocks)}
	copy(v.RootHash[:], top.block[:])
	return v, nil
}
