package logs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure/release"
)

// TestMain is kattest-log where the test starts itself as such.
func TestMain(m *testing.M) {
	if os.Getenv("KATTEST_LOG_TEST") != "" {
		os.Exit(cli.Main(New(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "KATTEST_LOG_TEST=1")
	return cmd
}

// Killed at any moment, add leaves a log that can be added to and watched, and
// bundles that are whole.
func TestAddKilled(t *testing.T) {
	dir := newLog(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	public := filepath.Join(work, "k.pub")
	if err := os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	const rounds, each = 25, 3
	var all []string
	for n := range rounds {
		args := []string{"add", dir, "--sign", filepath.Join(dir, "log.key"), "--key", public}
		for i := range each {
			b, err := release.SignStatement(fmt.Appendf(nil, `{"predicateType":"a","subject":[{"name":"%d"}]}`, n*each+i), key)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(work, fmt.Sprintf("%d.json", n*each+i))
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			args, all = append(args, file), append(all, file)
		}
		cmd := program(t, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(n) * 8 * time.Millisecond) // an addition takes some 150 ms
		_ = cmd.Process.Kill()                              // it may have ended
		_ = cmd.Wait()
	}
	args := append([]string{"add", dir, "--sign", filepath.Join(dir, "log.key"), "--key", public}, all...)
	if out, err := program(t, args...).CombinedOutput(); err != nil || bytes.Count(out, []byte("\n")) != rounds*each {
		t.Fatalf("%v: %s", err, out)
	}
	args = []string{"monitor", dir, "--log", filepath.Join(dir, "trusted_root.json"), "--state", filepath.Join(work, "seen"), "--key", public}
	for _, file := range all {
		args = append(args, "--bundle", file)
	}
	out, err := program(t, args...).CombinedOutput()
	if err != nil || !bytes.Contains(out, fmt.Appendf(nil, "log.example.org: %d entries", rounds*each)) {
		t.Fatalf("%v: %s", err, out)
	}
}
