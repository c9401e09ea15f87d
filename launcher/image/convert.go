package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/launcher/image/erofs"
)

// blockSize is that of EROFS and dm-verity, in bytes.
const blockSize = erofs.BlockSize

// saltDomain separates the salt from any other SHA-256.
const saltDomain = "kattest dm-verity salt v1\x00"

// Progress hears how a conversion goes: what is being done, and how many bytes
// of how many; total is 0 where it is not known beforehand.
type Progress func(step string, done, total int64)

// Options are what a conversion may have; the zero value is sound.
type Options struct {
	Progress Progress
	Cache    *Cache // of what was converted before; none if nil
}

// Convert writes the image's file system to root, an empty file: EROFS data,
// then the dm-verity tree. The bytes do not depend on what is in the cache.
// Temporary data stands beside root. After an error root's content is worthless.
func (img *Image) Convert(ctx context.Context, root *os.File, o Options) (pod.Verity, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if v, ok := img.fromCache(ctx, root, o); ok {
		return v, nil
	}
	c := &conversion{img: img, root: root, Options: o}
	defer c.close()
	tree, err := c.merge(ctx)
	if err != nil {
		return pod.Verity{}, err
	}
	v, err := c.write(ctx, tree)
	if err != nil {
		return pod.Verity{}, fmt.Errorf("writing the file system: %w", err)
	}
	o.Cache.keepImage(img.configDigest, root, v)
	return v, nil
}

// salt follows from the configuration, which names every layer's content: an
// image has the same salt however its layers are packed.
func (img *Image) salt() pod.Hash {
	return sha256.Sum256([]byte(saltDomain + img.configDigest.String()))
}

// fromCache copies a file system that was made before; its hash tree is
// computed anew, which tells whether it is what it was.
func (img *Image) fromCache(ctx context.Context, root *os.File, o Options) (pod.Verity, bool) {
	f, want, ok := o.Cache.image(img.configDigest)
	if !ok {
		return pod.Verity{}, false
	}
	defer f.Close()
	size := int64(want.DataBlocks) * blockSize
	w := newVerityWriter(root, img.salt(), int64(want.DataBlocks))
	defer w.stop()
	_, err := io.CopyN(&progressWriter{w: w, ctx: ctx, total: size, progress: o.Progress, step: "copying the file system"}, f, size)
	if err == nil {
		var v pod.Verity
		if v, err = w.finish(); err == nil && v == want {
			return v, true
		}
	}
	w.stop()
	if root.Truncate(0) == nil && ctx.Err() == nil {
		o.Cache.dropImage(img.configDigest)
	}
	return pod.Verity{}, false
}

// conversion is one run of Convert.
type conversion struct {
	Options
	img  *Image
	root *os.File

	mu    sync.Mutex
	files []*os.File // open until the end
	read  int64      // of packed layers, in bytes
	room  room
}

func (c *conversion) close() {
	for _, f := range c.files {
		_ = f.Close() // all are read, or temporary
	}
}

func (c *conversion) open(f *os.File) *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files = append(c.files, f)
	return f
}

// unpackers is how many layers are fetched and unpacked at a time.
const unpackers = 3

// merge unpacks the layers and applies them, the lowest first.
func (c *conversion) merge(ctx context.Context) (*tree, error) {
	dir, err := os.Open(c.tempDir())
	if err != nil {
		return nil, err
	}
	free, err := freeSpace(c.open(dir))
	if err != nil {
		return nil, err
	}
	c.room.left.Store(free)
	const step = "unpacking the layers"
	var total int64
	for _, l := range c.img.layers {
		total += l.desc.Size
	}
	c.Progress(step, 0, total)
	read := func(n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.read += int64(n)
		c.Progress(step, min(c.read, total), total)
	}
	layers := make([][]item, len(c.img.layers))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(unpackers)
	for i, l := range c.img.layers {
		group.Go(func() (err error) {
			layers[i], err = c.unpack(ctx, l, read)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	t := newTree()
	for i, items := range layers {
		if err := t.apply(items); err != nil {
			return nil, fmt.Errorf("layer %s: %w", c.img.layers[i].desc.Digest, err)
		}
	}
	return t, nil
}

// unpack reads a layer from the cache if it is there whole, or from where the
// image is.
func (c *conversion) unpack(ctx context.Context, l layer, read func(int)) ([]item, error) {
	sparse, err := c.temp()
	if err != nil {
		return nil, err
	}
	if f, size, ok := c.Cache.layer(l.diffID); ok {
		c.open(f)
		cached := layer{desc: l.desc, diffID: l.diffID, open: func() (io.ReadCloser, error) { return io.NopCloser(f), nil }}
		cached.desc.Digest, cached.desc.Size = l.diffID, size
		items, err := cached.unpack(ctx, nil, f, sparse, func(int) {})
		if err == nil || ctx.Err() != nil {
			return items, err
		}
		c.Cache.dropLayer(l.diffID) // it is damaged
		if sparse, err = c.temp(); err != nil {
			return nil, err
		}
	}
	keep, err := c.temp()
	if err != nil {
		return nil, err
	}
	items, err := l.unpack(ctx, keep, keep, sparse, read)
	if err == nil {
		c.Cache.keepLayer(l.diffID, keep.File)
	}
	return items, err
}

// tempDir is where layers are unpacked: in the cache, where they are to stay, or
// beside root.
func (c *conversion) tempDir() string {
	if c.Cache != nil {
		return c.Cache.dir
	}
	return filepath.Dir(c.root.Name())
}

// temp makes a file without a name.
func (c *conversion) temp() (*spool, error) {
	f, err := os.OpenFile(c.tempDir(), os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return nil, err
	}
	return &spool{File: c.open(f), room: &c.room}, nil
}

// freeSpace returns the bytes that may still be written beside f.
func freeSpace(f *os.File) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("free space beside %s: %w", f.Name(), err)
	}
	return int64(min(st.Bavail, 1<<62/uint64(st.Bsize))) * st.Bsize, nil
}

// write writes the file system and its hash tree.
func (c *conversion) write(ctx context.Context, t *tree) (pod.Verity, error) {
	t.root.seal()
	plan, err := erofs.Plan(t.root.Inode)
	if err != nil {
		return pod.Verity{}, err
	}
	size := plan.Blocks() * blockSize
	free, err := freeSpace(c.root)
	if err != nil {
		return pod.Verity{}, err
	}
	if size > free-free/128 { // the tree is a 127th
		return pod.Verity{}, fmt.Errorf("%d bytes: %w (%d bytes are free)", size, ErrNoSpace, free)
	}
	w := newVerityWriter(c.root, c.img.salt(), plan.Blocks())
	defer w.stop()
	out := &progressWriter{w: w, ctx: ctx, total: size, progress: c.Progress, step: "writing the file system"}
	if _, err := plan.WriteTo(out); err != nil {
		return pod.Verity{}, err
	}
	return w.finish()
}

// progressWriter reports what is written and stops when its context ends.
type progressWriter struct {
	w           *verityWriter
	ctx         context.Context
	done, total int64
	reported    int64
	step        string
	progress    Progress
}

func (w *progressWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	return n, errors.Join(err, w.count(int64(n)))
}

// ReadFrom implements io.ReaderFrom.
func (w *progressWriter) ReadFrom(r io.Reader) (int64, error) {
	var read int64
	for {
		n, err := w.w.ReadFrom(io.LimitReader(r, reportStep))
		read += n
		if err = errors.Join(err, w.count(n)); err != nil || n < reportStep {
			return read, err
		}
	}
}

// reportStep is how much is written between two reports, in bytes.
const reportStep = 8 << 20

func (w *progressWriter) count(n int64) error {
	w.done += n
	if w.done-w.reported < reportStep && w.done < w.total {
		return nil
	}
	w.reported = w.done
	w.progress(w.step, w.done, w.total)
	return w.ctx.Err()
}
