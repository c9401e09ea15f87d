package reproducible

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure/stack"
)

// made returns an artefact that counts how often it is made.
func made(content string) (artefact, *atomic.Int64) {
	var n atomic.Int64
	k := newKey("test")
	k.add("content", []byte(content))
	return artefact{
		name: "file",
		key:  k,
		also: []string{"also"},
		make: func(_ context.Context, work, out string) ([]stack.Stage, error) {
			n.Add(1)
			// The scratch folder is empty each time.
			if err := os.Mkdir(filepath.Join(work, "scratch"), 0o755); err != nil {
				return nil, err
			}
			return []stack.Stage{{Name: "content", SHA256: content}}, errors.Join(
				os.WriteFile(out, []byte(content), 0o644),
				os.WriteFile(filepath.Join(filepath.Dir(out), "also"), []byte("besides"), 0o644))
		},
	}, &n
}

func content(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func get(t *testing.T, c cache, a artefact) string {
	t.Helper()
	dir, stages, err := c.get(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, a.name)
	if len(a.also) > 0 {
		if diff := cmp.Diff([]stack.Stage{{Name: "content", SHA256: content(t, file)}}, stages); diff != "" {
			t.Errorf("stages (-want +got):\n%s", diff)
		}
	}
	return file
}

func TestCacheReuses(t *testing.T) {
	var log bytes.Buffer
	c := cache{dir: t.TempDir(), log: &progress{w: &log}}
	a, n := made("one")
	b, m := made("two")
	for range 3 {
		if got := content(t, get(t, c, a)); got != "one" {
			t.Errorf("one: %q", got)
		}
		if got := content(t, get(t, c, b)); got != "two" {
			t.Errorf("two: %q", got)
		}
	}
	if n.Load() != 1 || m.Load() != 1 {
		t.Errorf("made %d and %d times", n.Load(), m.Load())
	}
	if strings.Count(log.String(), "build: file: unchanged\n") != 4 {
		t.Errorf("log:\n%s", log.String())
	}
	left, err := os.ReadDir(filepath.Join(c.dir, "work"))
	if err != nil || len(left) != 0 {
		t.Errorf("left to work on: %v, %v", left, err)
	}
}

func TestCacheDistrustsWhatChanged(t *testing.T) {
	for name, damage := range map[string]func(file string) error{
		"changed":           func(file string) error { return os.WriteFile(file, []byte("oneX"), 0o644) },
		"removed":           os.Remove,
		"another removed":   func(file string) error { return os.Remove(filepath.Join(filepath.Dir(file), "also")) },
		"another changed":   func(file string) error { return os.Truncate(filepath.Join(filepath.Dir(file), "also"), 1) },
		"record removed":    func(file string) error { return os.Remove(filepath.Join(filepath.Dir(file), recordFile)) },
		"record cut off":    func(file string) error { return os.Truncate(filepath.Join(filepath.Dir(file), recordFile), 10) },
		"record of nothing": func(file string) error { return os.Truncate(filepath.Join(filepath.Dir(file), recordFile), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			c := cache{dir: t.TempDir(), log: &progress{}}
			a, n := made("one")
			if err := damage(get(t, c, a)); err != nil {
				t.Fatal(err)
			}
			if got := content(t, get(t, c, a)); got != "one" || n.Load() != 2 {
				t.Errorf("%q, made %d times", got, n.Load())
			}
		})
	}
}

// What takes seconds is made again where that is asked for, what takes minutes is
// not.
func TestCacheRemakes(t *testing.T) {
	c := cache{dir: t.TempDir(), log: &progress{}, remake: true}
	a, n := made("one")
	b, m := made("two")
	b.slow = true
	for range 3 {
		get(t, c, a)
		get(t, c, b)
	}
	if n.Load() != 3 || m.Load() != 1 {
		t.Errorf("made %d and %d times", n.Load(), m.Load())
	}
}

func TestCacheKeepsNothingOfAFailure(t *testing.T) {
	c := cache{dir: t.TempDir(), log: &progress{}}
	a, _ := made("one")
	good := a.make
	boom := errors.New("boom")
	a.make = func(ctx context.Context, work, out string) ([]stack.Stage, error) {
		stages, err := good(ctx, work, out)
		return stages, errors.Join(err, boom)
	}
	dir, stages, err := c.get(t.Context(), a)
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "building file: ") || dir != "" || stages != nil {
		t.Errorf("%q, %v, %v", dir, stages, err)
	}
	a.make = good
	if got := content(t, get(t, c, a)); got != "one" {
		t.Errorf("%q", got)
	}
}

// A build that was killed leaves its folder behind.
func TestCacheClearsWhatAKilledBuildLeft(t *testing.T) {
	c := cache{dir: t.TempDir(), log: &progress{}}
	a, _ := made("one")
	left := filepath.Join(c.dir, "work", a.key.String(), "scratch", "scratch")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	get(t, c, a)
}

func TestCacheMakesOnceForManyBuilds(t *testing.T) {
	c := cache{dir: t.TempDir(), log: &progress{}}
	a, n := made("one")
	good := a.make
	a.make = func(ctx context.Context, work, out string) ([]stack.Stage, error) {
		time.Sleep(50 * time.Millisecond)
		return good(ctx, work, out)
	}
	var builds sync.WaitGroup
	for range 4 {
		builds.Go(func() {
			if _, _, err := c.get(t.Context(), a); err != nil {
				t.Error(err)
			}
		})
	}
	builds.Wait()
	if n.Load() != 1 {
		t.Errorf("made %d times", n.Load())
	}
}

func TestCacheWaitEndsWithTheContext(t *testing.T) {
	var log bytes.Buffer
	c := cache{dir: t.TempDir(), log: &progress{w: &log}}
	a, n := made("one")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	holds := a
	holds.also = nil
	holds.make = func(_ context.Context, _, out string) ([]stack.Stage, error) {
		_, _, err := c.get(ctx, a)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the second build: %v", err)
		}
		return nil, os.WriteFile(out, nil, 0o644)
	}
	get(t, c, holds)
	if n.Load() != 0 {
		t.Errorf("made %d times", n.Load())
	}
	if diff := cmp.Diff("build: file: another build makes it: waiting\n", strings.SplitAfter(log.String(), "\n")[0]); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
