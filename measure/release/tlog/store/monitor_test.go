package store_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/measure/release/tlog"
)

func all(tlog.Entry) error { return nil }

func copied(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", dir, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}

// forked returns a log of three entries, and one of four with the same key that
// another third entry has: what a publisher would show to somebody else.
func forked(t *testing.T) (dir, fork string, key ed25519.PrivateKey, by *ecdsa.PrivateKey, shown []byte) {
	t.Helper()
	dir, key = newLog(t)
	by = ecKey(t, elliptic.P256())
	add(t, dir, key, by, sign(t, by, 0), sign(t, by, 1))
	fork = copied(t, dir)
	add(t, dir, key, by, sign(t, by, 2))
	shown = add(t, fork, key, by, sign(t, by, 3), sign(t, by, 4))[0]
	return dir, fork, key, by, shown
}

func misbehaves(t *testing.T, err error, want string) *tlog.Misbehaviour {
	t.Helper()
	m, ok := errors.AsType[*tlog.Misbehaviour](err)
	if !ok || !strings.Contains(m.Reason, want) {
		t.Fatalf("%v, want %q", err, want)
	}
	return m
}

func known(c tlog.Checkpoint) []tlog.Known { return []tlog.Known{{Name: "before", Checkpoint: c}} }

// A log that grows is in order; one that forgot or forked is caught, and the two
// checkpoints that show it are both signed by the log.
func TestMonitor(t *testing.T) {
	dir, fork, key, by, shown := forked(t)
	_, logs := trustedRoot(t, dir)
	log := logs[0]
	ctx := t.Context()
	before, err := tlog.Monitor(ctx, open(t, dir), log, nil, 0, all)
	if err != nil || before.Size != 3 {
		t.Fatalf("%+v, %v", before, err)
	}
	_, err = tlog.Monitor(ctx, open(t, fork), log, known(before), 3, all)
	m := misbehaves(t, err, "forked: its first 3 entries")
	for _, signed := range [][]byte{m.Known, m.Shown} {
		if _, err := log.ParseCheckpoint(signed); err != nil {
			t.Error(err)
		}
	}

	old := copied(t, dir)
	add(t, dir, key, by, sign(t, by, 5))
	var seen []int64
	after, err := tlog.Monitor(ctx, open(t, dir), log, known(before), before.Size, func(e tlog.Entry) error {
		seen = append(seen, e.Index)
		return nil
	})
	if err != nil || after.Size != 4 || len(seen) != 1 || seen[0] != 3 {
		t.Errorf("grown: %+v, %v, %v", after, seen, err)
	}
	_, err = tlog.Monitor(ctx, open(t, old), log, known(after), after.Size, all)
	misbehaves(t, err, "forgot: it had 4 entries (before), now 3")
	_, err = tlog.Monitor(ctx, open(t, fork), log, known(after), after.Size, all)
	misbehaves(t, err, "forked: its first 4 entries") // of the same size

	// What a bundle that was shown to one customer proves is held against the log.
	in, err := tlog.Check(shown, by.Public(), logs)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tlog.Monitor(ctx, open(t, dir), log, known(in.Checkpoint), 0, all)
	misbehaves(t, err, "forked")
	if _, err := tlog.Monitor(ctx, open(t, fork), log, known(in.Checkpoint), 0, all); err != nil {
		t.Errorf("where it is from: %v", err)
	}
}

// A log has to show what its checkpoint covers.
func TestMonitorHidden(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		damage     func(t *testing.T, dir string)
	}{
		{"no tile", "no such file", func(t *testing.T, dir string) { remove(t, dir, "tile/0/000.p/3") }},
		{"another tile", "inconsistent", func(t *testing.T, dir string) { write(t, dir, "tile/0/000.p/3", strings.Repeat("x", 96)) }},
		{"a tile cut off", "95 bytes, want 96", func(t *testing.T, dir string) { write(t, dir, "tile/0/000.p/3", strings.Repeat("x", 95)) }},
		{"a flood", "too long", func(t *testing.T, dir string) { write(t, dir, "tile/0/000.p/3", strings.Repeat("x", 1<<14)) }},
		{"no entries", "no such file", func(t *testing.T, dir string) { remove(t, dir, "tile/entries/000.p/3") }},
		{"other entries", "not what the tree has at index 0", func(t *testing.T, dir string) {
			write(t, dir, "tile/entries/000.p/3", "\x00\x01a\x00\x01b\x00\x01c")
		}},
		{"entries cut off", "cut off", func(t *testing.T, dir string) { write(t, dir, "tile/entries/000.p/3", "\x00") }},
		{"an entry cut off", "cut off", func(t *testing.T, dir string) { write(t, dir, "tile/entries/000.p/3", "\x00\x05a") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, _, _, _, _ := forked(t) //nolint:dogsled // a log of three
			_, logs := trustedRoot(t, dir)
			tt.damage(t, dir)
			c, err := tlog.Monitor(t.Context(), open(t, dir), logs[0], nil, 0, all)
			misbehaves(t, err, tt.want)
			if c.Size != 0 || c.Note != nil {
				t.Errorf("%+v beside an error", c)
			}
		})
	}
}

// Over HTTP the same, and an outage is no misbehaviour.
func TestMonitorHTTP(t *testing.T) {
	dir, _, _, _, _ := forked(t) //nolint:dogsled // a log of three
	_, logs := trustedRoot(t, dir)
	status, flood := 0, false
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case flood && r.URL.Path == "/checkpoint":
			_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20)))
		case status != 0 && r.URL.Path != "/checkpoint":
			w.WriteHeader(status)
		default:
			files.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	source, err := tlog.NewHTTP(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	monitor := func() error {
		_, err := tlog.Monitor(t.Context(), source, logs[0], nil, 0, all)
		return err
	}
	if err := monitor(); err != nil {
		t.Error(err)
	}
	status = http.StatusServiceUnavailable
	if _, ok := errors.AsType[*tlog.Misbehaviour](monitor()); ok || monitor() == nil {
		t.Errorf("an outage: %v", monitor())
	}
	status = http.StatusNotFound
	misbehaves(t, monitor(), "404")
	flood = true
	if err := monitor(); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tlog.Monitor(ctx, source, logs[0], nil, 0, all); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, address := range []string{"", "log.example.org", "file:///", "ftp://a", "http://"} {
		if _, err := tlog.NewHTTP(address); err == nil {
			t.Errorf("%q is an address", address)
		}
	}
}

// The caller's own failure is not the log's.
func TestMonitorCallback(t *testing.T) {
	dir, _, _, _, _ := forked(t) //nolint:dogsled // a log of three
	_, logs := trustedRoot(t, dir)
	_, err := tlog.Monitor(t.Context(), open(t, dir), logs[0], nil, 0, func(tlog.Entry) error { return os.ErrClosed })
	if _, ok := errors.AsType[*tlog.Misbehaviour](err); ok || !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}
