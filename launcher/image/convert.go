package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/go-dmverity/pkg/verity"
	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/pod"
)

// blockSize is that of EROFS and dm-verity, in bytes.
const blockSize = 4096

// saltDomain separates the salt from any other SHA-256.
const saltDomain = "kattest dm-verity salt v1\x00"

// Progress hears how a conversion goes: what is being done, and how many bytes
// of how many; total is 0 where it is not known beforehand.
type Progress func(step string, done, total int64)

// Convert writes the image's file system to root, an empty file: EROFS data,
// then the dm-verity tree. Temporary data stands beside root. After an error
// root's content is worthless.
func (img *Image) Convert(ctx context.Context, root *os.File, progress Progress) (pod.Verity, error) {
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	temp, err := os.CreateTemp(filepath.Dir(root.Name()), ".layers-")
	if err != nil {
		return pod.Verity{}, err
	}
	defer temp.Close()
	if err := os.Remove(temp.Name()); err != nil { // its descriptor keeps it
		return pod.Verity{}, err
	}
	tree, err := img.merge(ctx, temp, progress)
	if err != nil {
		return pod.Verity{}, err
	}
	if err := writeEROFS(ctx, root, tree, temp, progress); err != nil {
		return pod.Verity{}, fmt.Errorf("writing the file system: %w", err)
	}
	v, err := writeTree(root, img.salt(), progress)
	if err != nil {
		return pod.Verity{}, fmt.Errorf("writing the dm-verity tree: %w", err)
	}
	return v, nil
}

// salt follows from the configuration, which names every layer's content: an
// image has the same salt however its layers are packed.
func (img *Image) salt() pod.Hash {
	return sha256.Sum256([]byte(saltDomain + img.configDigest.String()))
}

// merge applies the layers, the lowest first, with the files' contents in temp.
func (img *Image) merge(ctx context.Context, temp *os.File, progress Progress) (*tree, error) {
	free, err := freeSpace(temp)
	if err != nil {
		return nil, err
	}
	t := newTree()
	s := &spool{w: temp, limit: free}
	for i, l := range img.layers {
		step := fmt.Sprintf("unpacking layer %d of %d", i+1, len(img.layers))
		var done int64
		progress(step, 0, l.desc.Size)
		err := l.unpack(ctx, func(n int) {
			done += int64(n)
			progress(step, done, l.desc.Size)
		}, func(r io.Reader) error { return t.apply(r, s) })
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// freeSpace returns the bytes that may still be written beside f.
func freeSpace(f *os.File) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("free space beside %s: %w", f.Name(), err)
	}
	return int64(min(st.Bavail, 1<<62/uint64(st.Bsize))) * st.Bsize, nil
}

func writeEROFS(ctx context.Context, root *os.File, t *tree, contents io.ReaderAt, progress Progress) error {
	total := t.root.bytes()
	free, err := freeSpace(root)
	if err != nil {
		return err
	}
	if total > free-free/128 { // the tree is a 127th
		return fmt.Errorf("%d bytes of files: %w (%d bytes are free)", total, ErrNoSpace, free)
	}
	out := &progressWriter{f: root, ctx: ctx, total: total, progress: progress}
	w := erofs.Create(out, erofs.WithBlockSize(blockSize), erofs.WithBuildTime(0, 0))
	if err := w.CopyFrom(treeFS{t.root, contents}); err != nil {
		return err
	}
	return w.Close()
}

// bytes sums the files below n, each in whole blocks, and a little for its inode.
func (n *node) bytes() int64 {
	total := (n.size+blockSize-1)/blockSize*blockSize + 128
	for _, child := range n.children {
		total += child.bytes()
	}
	return total
}

// progressWriter reports what is written and stops when its context ends.
type progressWriter struct {
	f           *os.File
	ctx         context.Context
	done, total int64
	progress    Progress
}

func (w *progressWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.f.Write(p)
	w.done += int64(n)
	w.progress("writing the file system", min(w.done, w.total), w.total)
	return n, err
}

func (w *progressWriter) Seek(offset int64, whence int) (int64, error) {
	return w.f.Seek(offset, whence)
}

// writeTree pads root to whole blocks and puts the dm-verity tree behind them.
func writeTree(root *os.File, salt pod.Hash, progress Progress) (pod.Verity, error) {
	info, err := root.Stat()
	if err != nil {
		return pod.Verity{}, err
	}
	blocks := (info.Size() + blockSize - 1) / blockSize
	if blocks == 0 {
		return pod.Verity{}, errors.New("the file system is empty")
	}
	if err := root.Truncate(blocks * blockSize); err != nil {
		return pod.Verity{}, err
	}
	progress("writing the hash tree", 0, 0)
	params := verity.DefaultParams()
	params.DataBlockSize, params.HashBlockSize = blockSize, blockSize
	params.DataBlocks = uint64(blocks)
	params.Salt, params.SaltSize = salt[:], uint16(len(salt))
	params.HashAreaOffset = uint64(blocks) * blockSize
	params.NoSuperblock = true
	sum, err := verity.Create(&params, root.Name(), root.Name())
	if err != nil {
		return pod.Verity{}, err
	}
	v := pod.Verity{Salt: salt, DataBlocks: uint64(blocks)}
	if copy(v.RootHash[:], sum) != len(v.RootHash) || bytes.Equal(sum, make([]byte, len(sum))) {
		return pod.Verity{}, fmt.Errorf("root hash %s is not a SHA-256", hex.EncodeToString(sum))
	}
	return v, nil
}
