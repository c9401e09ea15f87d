package launcher

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/launcher/vm"
)

// TestOneAtATime: whatever else looks at a folder or asks its launcher, one
// launcher has it at a time, and each that comes to it when it is free gets it.
func TestOneAtATime(t *testing.T) {
	dir := vmFolder(t, "vm")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var holders, runs atomic.Int32
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for ctx.Err() == nil {
				f, err := openFolder(dir)
				if errors.Is(err, ErrRunning) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d launchers have the folder", n)
				}
				err = f.root.Mkdir(runDir, 0o700)
				if err == nil {
					f.requests, err = listen(f.file)
				}
				if err == nil {
					err = f.writeState(State{MediaType: StateMediaType, Started: time.Now()})
				}
				if err == nil {
					err = f.writeEnd(endOf(time.Now(), 0, nil))
				}
				runs.Add(1)
				holders.Add(-1)
				if err := errors.Join(err, f.close()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			if s, err := ReadStatus(dir); err != nil && ctx.Err() == nil {
				t.Logf("status: %v", err) // ten changes within one look
			} else if s.Phase == Dead {
				t.Error("a launcher that lives is taken for dead")
			}
		}
	})
	all.Go(func() {
		for ctx.Err() == nil {
			asked, stop := context.WithTimeout(ctx, 50*time.Millisecond)
			err := Stop(asked, dir, time.Second)
			stop()
			if err != nil && !errors.Is(err, ErrNotRunning) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("stop: %v", err)
			}
		}
	})
	all.Wait()
	if runs.Load() < 10 {
		t.Errorf("%d runs in 2 seconds", runs.Load())
	}
	if _, err := os.Stat(filepath.Join(dir, LockFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock's file is left: %v", err)
	}
}

// TestRemoveOrRun: of a run and a removal at the same time, the first to come has
// the folder, and the other fails with a reason.
func TestRemoveOrRun(t *testing.T) {
	var ran, removed int
	for range 200 {
		dir := vmFolder(t, "vm")
		var errRemove error
		var all sync.WaitGroup
		all.Go(func() { _, errRemove = Remove(dir, false) })
		f, errRun := openFolder(dir)
		if errRun == nil {
			_, err := f.root.Lstat(vm.ConfigFile)
			all.Wait()
			switch {
			case errors.Is(errRemove, ErrRunning):
				if err != nil {
					t.Errorf("a folder that is run lost its configuration: %v", err)
				}
				ran++
			case errRemove == nil || errors.Is(errRemove, ErrKept): // it was gone, or going, when the lock was taken
				removed++
			default:
				t.Errorf("rm: %v", errRemove)
			}
			_ = f.close() // of a folder that may be gone
			continue
		}
		all.Wait()
		removed++
		if errRemove != nil {
			t.Errorf("neither: %v, %v", errRun, errRemove)
		}
	}
	t.Logf("%d ran, %d were removed", ran, removed)
	if ran+removed != 200 {
		t.Errorf("%d of 200", ran+removed)
	}
}
