package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// ErrNoSpace says that the disk is too small for the image.
var ErrNoSpace = errors.New("no space for the image's files")

// room counts what may still be written, in bytes, by all who write at once.
type room struct{ left atomic.Int64 }

// spool is a temporary file.
type spool struct {
	*os.File
	room *room
	end  int64 // of what has been laid out in it
}

func (s *spool) writeAt(p []byte, at int64) error {
	if left := s.room.left.Add(-int64(len(p))); left < 0 {
		return fmt.Errorf("%d bytes too many: %w", -left, ErrNoSpace)
	}
	_, err := s.WriteAt(p, at)
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

func (s *spool) append(p []byte) error {
	err := s.writeAt(p, s.end)
	s.end += int64(len(p))
	return err
}

// unpack reads the layer's tar stream; keep, if there is one, gets its bytes,
// and plain has them as they come. Blob and stream are checked against their
// digests: what unpack returns with an error counts for nothing.
func (l layer) unpack(ctx context.Context, keep *spool, plain io.ReaderAt, sparse *spool, read func(n int)) (_ []item, err error) {
	rc, err := l.open()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	blob := newBlobReader(&contextReader{ctx, rc, read}, l.desc)
	stream, sum, err := l.stream(blob)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", l.desc.Digest, errors.Join(err, blob.finish()))
	}
	defer stream.Close()
	ahead := newReadAhead(ctx, stream, sum, keep)
	items, err := index(ctx, ahead, plain, sparse)
	if err == nil {
		_, err = io.Copy(io.Discard, ahead)
	}
	ahead.close()
	// A blob that is not the one named explains any other error.
	if blobErr := blob.finish(); blobErr != nil {
		return nil, blobErr
	}
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", l.desc.Digest, err)
	}
	if sum == nil {
		return items, nil
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); got != l.diffID.Hex {
		return nil, fmt.Errorf("layer %s: unpacked it hashes to sha256:%s, the configuration says %s", l.desc.Digest, got, l.diffID)
	}
	return items, nil
}

// stream unpacks a blob. There is nothing to unpack, and no second digest to
// check, where the configuration says that the stream is the blob.
func (l layer) stream(blob io.Reader) (io.ReadCloser, hash.Hash, error) {
	if l.desc.Digest == l.diffID {
		return io.NopCloser(blob), nil, nil
	}
	stream, err := decompress(blob)
	return stream, sha256.New(), err
}

// Magic numbers. Sources: RFC 1952, section 2.3.1; RFC 8878, section 3.1.1.
const (
	gzipMagic = "\x1f\x8b"
	zstdMagic = "\x28\xb5\x2f\xfd"
)

// decompress finds out how a stream is packed, whatever its media type says, as docker
// does. One that is not packed is left as it is.
func decompress(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, aheadSize)
	magic, err := in.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) { // what is shorter is not packed
		return nil, err
	}
	switch {
	case strings.HasPrefix(string(magic), gzipMagic):
		return gzip.NewReader(in)
	case string(magic) == zstdMagic:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(in), nil
}

// maxWindow bounds the memory that a zstd stream asks for, in bytes: what the zstd
// program takes without being told to.
const maxWindow = 128 << 20

// readAhead reads a stream in a goroutine of its own, for it may have to be unpacked;
// what is taken from it is hashed and written to a spool, if there are these.
type readAhead struct {
	sum         hash.Hash
	keep        *spool
	full, empty chan []byte
	cancel      context.CancelFunc
	err         error // after full is closed
	rest, buf   []byte
}

const (
	aheadBuffers = 8
	aheadSize    = 1 << 20
)

func newReadAhead(ctx context.Context, r io.Reader, sum hash.Hash, keep *spool) *readAhead {
	ctx, cancel := context.WithCancel(ctx)
	a := &readAhead{sum: sum, keep: keep, full: make(chan []byte, aheadBuffers), empty: make(chan []byte, aheadBuffers), cancel: cancel}
	for range aheadBuffers {
		a.empty <- make([]byte, aheadSize)
	}
	go func() {
		defer close(a.full)
		for a.err == nil {
			var buf []byte
			select {
			case buf = <-a.empty:
			case <-ctx.Done():
				a.err = ctx.Err()
				return
			}
			var n int
			n, a.err = io.ReadFull(r, buf[:aheadSize])
			if errors.Is(a.err, io.ErrUnexpectedEOF) {
				a.err = io.EOF
			}
			a.full <- buf[:n]
		}
	}()
	return a
}

// Read implements io.Reader.
func (a *readAhead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.buf != nil {
			a.empty <- a.buf
			a.buf = nil
		}
		buf, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.buf, a.rest = buf, buf
		if a.sum != nil {
			a.sum.Write(buf)
		}
		if a.keep != nil {
			if err := a.keep.append(buf); err != nil {
				return 0, err
			}
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close ends the reading; its stream is not touched any more.
func (a *readAhead) close() {
	a.cancel()
	for range a.full { // until it is closed
	}
}
