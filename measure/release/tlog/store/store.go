// Package store adds to a publisher's log in a folder: Tessera's POSIX driver
// behind checks of our own. Tessera begins a new tree where it finds none, and signs
// what its files say; a log would so forget, or fork. So the folder must show the
// tree that it has vouched for before it is added to.
//
// It does not look at what an entry says. The folder's owner is trusted.
package store

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	xtlog "golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/kraudcloud/kattest/internal/wholefile"
	"github.com/kraudcloud/kattest/measure/release/tlog"
)

// TrustedRootPath is the file of the folder that says to verifiers which log it is.
const TrustedRootPath = "trusted_root.json"

// Tessera's state. Source: tessera v1.0.4, storage/posix/files.go.
const (
	statePath = ".state/treeState"
	lockPath  = ".state/kattest.lock"
)

// How Tessera works for us: an addition waits for its checkpoint.
const (
	interval = 100 * time.Millisecond // its least between two checkpoints
	patience = time.Minute            // for a checkpoint
)

// ErrKey says that a key is not the log's.
var ErrKey = errors.New("not the log's key")

// Init makes a log without entries in a folder that must not be there, and returns
// it. The folder is there whole, or not at all. The key must be Ed25519's.
func Init(ctx context.Context, dir, origin string, key crypto.Signer) (tlog.Log, error) {
	log, err := newLog(origin, key)
	if err != nil {
		return tlog.Log{}, err
	}
	root, err := log.TrustedRoot(time.Now().UTC().Truncate(time.Second))
	if err != nil {
		return tlog.Log{}, err
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return tlog.Log{}, fmt.Errorf("%s: %w", dir, fs.ErrExist)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".log-")
	if err != nil {
		return tlog.Log{}, err
	}
	defer os.RemoveAll(work)
	if err := fill(ctx, work, log, key, root); err != nil {
		return tlog.Log{}, err
	}
	return log, os.Rename(work, dir)
}

func fill(ctx context.Context, dir string, log tlog.Log, key crypto.Signer, root []byte) error {
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // all of it is public
		return err
	}
	l := &Log{Log: log, dir: dir, key: key}
	stop, _, err := l.open(ctx)
	if err != nil {
		return err
	}
	if err := stop(); err != nil {
		return err
	}
	return wholefile.Write(filepath.Join(dir, TrustedRootPath), root, 0o644)
}

func newLog(origin string, key crypto.Signer) (tlog.Log, error) {
	if err := tlog.CheckOrigin(origin); err != nil {
		return tlog.Log{}, err
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return tlog.Log{}, fmt.Errorf("%w: %T, and a log's is Ed25519", ErrKey, key.Public())
	}
	return tlog.Log{Origin: origin, Key: public}, nil
}

// Log is a log that can be added to.
type Log struct {
	tlog.Log
	dir  string
	key  crypto.Signer
	root *os.Root
	lock *os.File
	said *complaints
}

// Open opens the log in a folder, whose key must be given, for this process alone.
func Open(ctx context.Context, dir string, key crypto.Signer) (*Log, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	l := &Log{dir: dir, key: key, root: root}
	if err := l.check(ctx); err != nil {
		l.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return l, nil
}

// Close lets others add.
func (l *Log) Close() {
	l.root.Close()
	if l.lock != nil {
		l.lock.Close()
	}
}

func (l *Log) check(ctx context.Context) error {
	text, err := l.read(ctx, TrustedRootPath, tlog.MaxTrustedRoot)
	if err != nil {
		return fmt.Errorf("no log is here: %w", err)
	}
	logs, err := tlog.ParseTrustedRoot(text)
	if err != nil {
		return fmt.Errorf("%s: %w", TrustedRootPath, err)
	}
	if len(logs) != 1 {
		return fmt.Errorf("%s: %d logs, want 1", TrustedRootPath, len(logs))
	}
	l.Log = logs[0]
	if public, ok := l.key.Public().(ed25519.PublicKey); !ok || !public.Equal(l.Key) {
		return fmt.Errorf("%w: %s has another", ErrKey, l.Origin)
	}
	if l.lock, err = l.root.OpenFile(lockPath, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	if err := unix.Flock(int(l.lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("waiting for another that adds: %w", err)
	}
	return l.sound(ctx)
}

func (l *Log) read(ctx context.Context, path string, limit int64) ([]byte, error) {
	return tlog.Dir{Root: l.root}.Read(ctx, path, limit)
}

// sound checks that Tessera's state is a tree that the files show, and that what
// was vouched for is its beginning.
func (l *Log) sound(ctx context.Context) error {
	published, err := tlog.OpenTree(ctx, tlog.Dir{Root: l.root}, l.Log)
	if err != nil {
		return err
	}
	state, err := l.state(ctx)
	if err != nil {
		return err
	}
	if state.Size < published.Checkpoint.Size {
		return fmt.Errorf("%s: %d entries, but %d were vouched for", statePath, state.Size, published.Checkpoint.Size)
	}
	tree := tlog.NewTree(ctx, tlog.Dir{Root: l.root}, l.Log, state)
	root, err := tree.Root(published.Checkpoint.Size)
	switch {
	case err != nil:
		return fmt.Errorf("the tree is damaged: %w", err)
	case root != published.Checkpoint.Root:
		return fmt.Errorf("the tree is damaged: its first %d entries have root %v, but what was signed is %v", published.Checkpoint.Size, root, published.Checkpoint.Root)
	}
	return nil
}

// state is the tree that Tessera goes on from, which it need not have vouched for.
func (l *Log) state(ctx context.Context) (tlog.Checkpoint, error) {
	text, err := l.read(ctx, statePath, 1<<10)
	if err != nil {
		return tlog.Checkpoint{}, fmt.Errorf("what a new entry would be added to: %w", err)
	}
	var state struct {
		Size int64  `json:"size"`
		Root []byte `json:"root"`
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return tlog.Checkpoint{}, fmt.Errorf("%s: %w", statePath, err)
	}
	if len(state.Root) != len(tlog.Hash{}) {
		return tlog.Checkpoint{}, fmt.Errorf("%s: a root of %d bytes, want %d", statePath, len(state.Root), len(tlog.Hash{}))
	}
	return tlog.Checkpoint{Size: state.Size, Root: tlog.Hash(state.Root)}, nil
}

// Add puts leaves into the log, but for those that it has, and returns the tree that
// covers them all, with the index of each. Interrupted, it is to be called again:
// what was added is found.
func (l *Log) Add(ctx context.Context, leaves [][]byte) (tree *tlog.Tree, indexes []int64, err error) {
	stop, appender, err := l.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	tree, found, err := l.find(ctx, leaves)
	if err != nil {
		return nil, nil, err
	}
	var futures []tessera.IndexFuture
	for _, leaf := range leaves {
		hash := xtlog.RecordHash(leaf)
		if _, ok := found[hash]; !ok {
			found[hash] = -1 // once, though it be given twice
			futures = append(futures, appender.Add(ctx, tessera.NewEntry(leaf)))
		}
	}
	for _, future := range futures {
		if err := wait(ctx, future); err != nil {
			return nil, nil, fmt.Errorf("adding to %s: %w", l.Origin, err)
		}
	}
	if len(futures) > 0 {
		if tree, found, err = l.find(ctx, leaves); err != nil {
			return nil, nil, err
		}
	}
	for _, leaf := range leaves {
		index, ok := found[xtlog.RecordHash(leaf)]
		if !ok {
			return nil, nil, fmt.Errorf("adding to %s: what was added is not there", l.Origin)
		}
		indexes = append(indexes, index)
	}
	return tree, indexes, nil
}

// wait waits for an entry to be in the tree. Tessera answers nothing after a stop.
func wait(ctx context.Context, future tessera.IndexFuture) error {
	done := make(chan error, 1)
	go func() {
		_, err := future()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(patience):
		return errors.New("no answer")
	}
}

// find waits for the checkpoint that covers all of Tessera's state, and returns
// where it has the leaves.
func (l *Log) find(ctx context.Context, leaves [][]byte) (*tlog.Tree, map[tlog.Hash]int64, error) {
	tree, err := l.published(ctx)
	if err != nil {
		return nil, nil, err
	}
	wanted := map[tlog.Hash]bool{}
	for _, leaf := range leaves {
		wanted[xtlog.RecordHash(leaf)] = true
	}
	found := map[tlog.Hash]int64{}
	err = tree.Leaves(0, func(index int64, hash tlog.Hash) error {
		if _, again := found[hash]; wanted[hash] && !again {
			found[hash] = index
		}
		return nil
	})
	return tree, found, err
}

// open starts Tessera over the folder. Its warnings, which it prints and goes on
// after, are kept for who waits in vain.
func (l *Log) open(ctx context.Context) (stop func() error, appender *tessera.Appender, err error) {
	l.said = &complaints{}
	klog.LogToStderr(false)
	klog.SetOutput(l.said)
	ctx, cancel := context.WithCancel(ctx)
	driver, err := posix.New(ctx, posix.Config{Path: l.dir})
	if err != nil {
		cancel()
		return nil, nil, err
	}
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(signer{l}).WithCheckpointInterval(interval).
		WithBatching(tessera.DefaultBatchMaxSize, interval/10).WithGarbageCollectionInterval(0))
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("opening the log in %s: %w", l.dir, err)
	}
	return func() error {
		defer cancel()
		ctx, timeout := context.WithTimeout(ctx, patience)
		defer timeout()
		return shutdown(ctx)
	}, appender, nil
}

// published waits for the checkpoint that covers all that Tessera has.
func (l *Log) published(ctx context.Context) (*tlog.Tree, error) {
	for deadline := time.Now().Add(patience); ; {
		tree, err := tlog.OpenTree(ctx, tlog.Dir{Root: l.root}, l.Log)
		if err != nil {
			return nil, err
		}
		state, err := l.state(ctx)
		if err != nil || tree.Checkpoint.Size >= state.Size {
			return tree, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("adding to %s: no checkpoint covers its %d entries: %s", l.Origin, state.Size, l.said)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(interval / 10):
		}
	}
}

// signer signs checkpoints.
// Source: C2SP signed-note, section "Signatures".
type signer struct{ log *Log }

func (s signer) Name() string { return s.log.Origin }

func (s signer) KeyHash() uint32 {
	id := s.log.ID()
	return binary.BigEndian.Uint32(id[:])
}

func (s signer) Sign(text []byte) ([]byte, error) { return s.log.key.Sign(nil, text, crypto.Hash(0)) }

var _ note.Signer = signer{}

// complaints keeps the last line that was written.
type complaints struct {
	mu   sync.Mutex
	last string
}

func (c *complaints) Write(line []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = string(bytes.TrimSpace(line))
	return len(line), nil
}

// String returns the last line.
func (c *complaints) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}
