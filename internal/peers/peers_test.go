package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/internal/cli"
)

// Run with a launch's number in KATTEST_TEST_PEER, the test is a peer: one that
// knows the answers of seed 1, but lies about launch 7.
func TestMain(m *testing.M) {
	if os.Getenv("KATTEST_TEST_PEER") == "" {
		os.Exit(m.Run())
	}
	for i := range 20 {
		l := newLaunch(1, i)
		if ovmf, err := os.ReadFile(value("--ovmf=")); err != nil || !bytes.Equal(ovmf, l.firmware) {
			continue
		}
		digest, err := l.digest()
		if err != nil {
			os.Exit(1)
		}
		if i == 7 {
			digest = strings.Repeat("0", len(digest))
		}
		fmt.Println(digest)
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "unknown firmware")
	os.Exit(1)
}

func value(flag string) string {
	for _, a := range os.Args {
		if v, ok := strings.CutPrefix(a, flag); ok {
			return v
		}
	}
	return ""
}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	cmd := newPeers()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// self are flags that name this test as every peer.
func self(t *testing.T) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KATTEST_TEST_PEER", "1")
	var flags []string
	for _, p := range peerNames() {
		flags = append(flags, "--"+p, exe)
	}
	return flags
}

func TestPeersAgree(t *testing.T) {
	out, err := run(t, append(self(t), "--first", "8", "--n", "12")...)
	if err != nil {
		t.Fatal(err, out)
	}
	if !strings.Contains(out, "12 launches of seed 1, 12 of them known to a peer: no difference") {
		t.Error(out)
	}
}

func TestPeerDiffers(t *testing.T) {
	out, err := run(t, append(self(t), "--n", "12")...)
	silent, ok := errors.AsType[*cli.Silent](err)
	if !ok || silent.Code != cli.ExitMismatch {
		t.Fatalf("%v, want exit status 5", err)
	}
	if !strings.Contains(out, "repeat with: --seed 1 --first 7 --n 1") || !strings.Contains(out, ": 0000") {
		t.Error(out)
	}
}

func TestPeerRefuses(t *testing.T) {
	out, err := run(t, append(self(t), "--seed", "2", "--n", "1")...)
	if _, ok := errors.AsType[*cli.Silent](err); !ok || !strings.Contains(out, "refuses: exit status 1: unknown firmware") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"--python", "true", "--n", "0"}, {"--rust", "true", "--time"}} {
		_, err := run(t, args...)
		if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitUsage {
			t.Errorf("%q: %v, want exit status 2", args, err)
		}
	}
	if _, err := run(t, "--python", "/nonexistent/peer", "--n", "9"); err == nil {
		t.Error("a peer that cannot be started was compared with")
	}
}

// All launches are such that they can be measured, and every kind comes up.
func TestLaunches(t *testing.T) {
	seen := map[string]int{}
	for i := range 300 {
		l := newLaunch(3, i)
		if _, err := l.digest(); err != nil {
			t.Fatalf("launch %d, %v: %v", i, l, err)
		}
		seen[fmt.Sprintf("%s %v", l.kind.profile, l.kernel != nil)]++
	}
	for _, k := range kinds() {
		if seen[k.profile+" false"] == 0 || k.hashes && seen[k.profile+" true"] == 0 {
			t.Errorf("%s: not among the launches: %v", k.profile, seen)
		}
	}
}
