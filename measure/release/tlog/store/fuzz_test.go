package store_test

import (
	"context"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/release/tlog"
)

// A bundle that is taken is the one that was logged: its statement and signature.
func FuzzCheck(f *testing.F) {
	dir, key := newLog(f)
	by := ecKey(f, elliptic.P256())
	_, logs := trustedRoot(f, dir)
	logged := add(f, dir, key, by, sign(f, by, 0), sign(f, by, 1))[1]
	want, err := tlog.Check(logged, by.Public(), logs)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(logged)
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := tlog.Check(data, by.Public(), logs)
		switch {
		case err != nil && !cmp.Equal(in, tlog.Inclusion{}):
			t.Fatalf("%+v beside %v", in, err)
		case err == nil && in.Leaf != want.Leaf:
			t.Fatal("something that was never logged is taken")
		}
	})
}

func FuzzTrustedRoot(f *testing.F) {
	_, key := newLog(f)
	log := tlog.Log{Origin: origin, Key: key.Public().(ed25519.PublicKey)}
	text, err := log.TrustedRoot(time.Unix(1e9, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		logs, err := tlog.ParseTrustedRoot(data)
		if (err == nil) == (len(logs) == 0) {
			t.Fatalf("%v, %v", logs, err)
		}
		for _, l := range logs {
			again, err := l.TrustedRoot(time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			if back, err := tlog.ParseTrustedRoot(again); err != nil || !cmp.Equal(back, []tlog.Log{l}) {
				t.Fatalf("%v, %v", back, err)
			}
		}
	})
}

// memory is a log of three files.
type memory map[string][]byte

func (m memory) Read(_ context.Context, path string, limit int64) ([]byte, error) {
	data, ok := m[path]
	switch {
	case !ok:
		return nil, fs.ErrNotExist
	case int64(len(data)) > limit:
		return nil, errors.New("too long")
	}
	return data, nil
}

// Whatever a log serves, what Monitor passes on is what the checkpoint covers.
func FuzzMonitor(f *testing.F) {
	dir, key := newLog(f)
	by := ecKey(f, elliptic.P256())
	_, logs := trustedRoot(f, dir)
	add(f, dir, key, by, sign(f, by, 0), sign(f, by, 1), sign(f, by, 2))
	var files [3][]byte
	for i, name := range []string{"checkpoint", "tile/0/000.p/3", "tile/entries/000.p/3"} {
		var err error
		if files[i], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(files[0], files[1], files[2])
	f.Fuzz(func(t *testing.T, checkpoint, tile, entries []byte) {
		seen := 0
		c, err := tlog.Monitor(t.Context(), memory{"checkpoint": checkpoint, "tile/0/000.p/3": tile, "tile/entries/000.p/3": entries}, logs[0], nil, 0,
			func(tlog.Entry) error { seen++; return nil })
		switch {
		case err != nil && c.Note != nil:
			t.Fatalf("%+v beside %v", c, err)
		case err == nil && c.Size != 0 && (seen != 3 || string(entries[:len(files[2])]) != string(files[2])):
			t.Fatalf("%d entries", seen)
		}
	})
}

// Every error of a checkpoint says so, and beside one there is nothing.
func FuzzCheckpoint(f *testing.F) {
	dir, _ := newLog(f)
	_, logs := trustedRoot(f, dir)
	text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := logs[0].ParseCheckpoint(data)
		if err != nil && (!errors.Is(err, tlog.ErrCheckpoint) || c.Note != nil || errors.Is(err, release.ErrSignature)) {
			t.Fatalf("%+v, %v", c, err)
		}
		if err == nil && c.Size != 0 {
			t.Fatal("a checkpoint that was never signed is taken")
		}
	})
}
