package image

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/kraudcloud/kattest/guest/pod"
)

// digestsPerBlock is how many digests a block of the dm-verity tree holds.
const digestsPerBlock = blockSize / sha256.Size

// verityWriter writes a file system of known size and the dm-verity tree behind
// it; a goroutine hashes the blocks as they pass. What it holds does not depend
// on the size. Who makes one has to stop it.
//
// The tree: each block's digest is SHA-256 of salt and block; 128 digests fill
// a block of the level above, the rest of which is zero; the root hash is the
// only digest of the top level's only block. The top level stands first.
// Source: Linux 6.12, Documentation/admin-guide/device-mapper/verity.rst.
type verityWriter struct {
	f      io.WriterAt
	salt   pod.Hash
	blocks int64

	buf    []byte
	n      int   // bytes in buf
	offset int64 // of buf
	full   chan []byte
	empty  chan []byte
	stop   func() // ends the goroutine when it has hashed what was written

	// Of the goroutine, until it has ended.
	hash   hash.Hash
	levels []level // the lowest first
	err    error
}

// level is one of the tree's, with the block that is being filled.
type level struct {
	offset int64  // of what is to be written
	full   []byte // blocks that are
	block  [blockSize]byte
	n      int // digests in it
}

// What is written, and on its way to be hashed: few and big, so that neither
// side waits for the other often where processors are busy.
const (
	verityBuffers    = 8
	verityBufferSize = 256 * blockSize
	// A write to the file waits for any other: of the tree there are few as well.
	levelBufferSize = 64 * blockSize
)

func newVerityWriter(f io.WriterAt, salt pod.Hash, blocks int64) *verityWriter {
	w := &verityWriter{
		f: f, salt: salt, blocks: blocks, hash: sha256.New(), levels: verityLevels(blocks),
		buf: make([]byte, verityBufferSize), full: make(chan []byte, verityBuffers), empty: make(chan []byte, verityBuffers),
	}
	for range verityBuffers - 1 {
		w.empty <- make([]byte, verityBufferSize)
	}
	done := make(chan struct{})
	w.stop = sync.OnceFunc(func() {
		close(w.full)
		<-done
	})
	go func() {
		defer close(done)
		for buf := range w.full {
			for block := range slices.Chunk(buf, blockSize) {
				if w.err == nil {
					w.err = w.add(0, w.digest(block))
				}
			}
			w.empty <- buf[:verityBufferSize]
		}
	}()
	return w
}

// verityLevels lays out the tree above so many blocks.
func verityLevels(blocks int64) []level {
	var sizes []int64
	for n := blocks; n > 1; {
		n = (n + digestsPerBlock - 1) / digestsPerBlock
		sizes = append(sizes, n)
	}
	levels := make([]level, len(sizes))
	offset := blocks * blockSize
	for i := len(sizes) - 1; i >= 0; i-- {
		levels[i].offset = offset
		offset += sizes[i] * blockSize
	}
	return levels
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

// flush writes buf and has it hashed.
func (w *verityWriter) flush() error {
	if _, err := w.f.WriteAt(w.buf[:w.n], w.offset); err != nil {
		return err
	}
	w.offset += int64(w.n)
	w.full <- w.buf[:w.n]
	w.buf, w.n = <-w.empty, 0
	return nil
}

func (w *verityWriter) digest(block []byte) (sum pod.Hash) {
	w.hash.Reset()
	w.hash.Write(w.salt[:])
	w.hash.Write(block)
	w.hash.Sum(sum[:0])
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
	l.full = append(l.full, l.block[:]...)
	digest := w.digest(l.block[:])
	clear(l.block[:])
	l.n = 0
	if i+1 == len(w.levels) {
		copy(l.block[:], digest[:])
		return nil
	}
	if len(l.full) == levelBufferSize {
		if err := l.write(w.f); err != nil {
			return err
		}
	}
	return w.add(i+1, digest)
}

// write writes the blocks that are full.
func (l *level) write(f io.WriterAt) error {
	_, err := f.WriteAt(l.full, l.offset)
	l.offset += int64(len(l.full))
	l.full = l.full[:0]
	return err
}

// finish writes what is left and returns what opens the device.
func (w *verityWriter) finish() (pod.Verity, error) {
	if w.n%blockSize != 0 || w.offset+int64(w.n) != w.blocks*blockSize || len(w.levels) == 0 {
		return pod.Verity{}, fmt.Errorf("%d bytes were written, want %d blocks, and two at least", w.offset+int64(w.n), w.blocks)
	}
	if err := w.flush(); err != nil {
		return pod.Verity{}, err
	}
	w.stop()
	if w.err != nil {
		return pod.Verity{}, w.err
	}
	for i := range w.levels {
		if w.levels[i].n > 0 {
			if err := w.put(i); err != nil {
				return pod.Verity{}, err
			}
		}
		if err := w.levels[i].write(w.f); err != nil {
			return pod.Verity{}, err
		}
	}
	top := w.levels[len(w.levels)-1]
	v := pod.Verity{Salt: w.salt, DataBlocks: uint64(w.blocks)}
	copy(v.RootHash[:], top.block[:])
	return v, nil
}
