package logs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/measure/release/tlog/store"
)

func newLog(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "log")
	if _, err := store.Init(t.Context(), dir, "log.example.org", key); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// Somebody's mistake must not be served.
	if err := os.WriteFile(filepath.Join(dir, "log.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start runs kattest-log and returns the first line that it prints.
func start(t *testing.T, args ...string) (line string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	cmd := New()
	cmd.SetArgs(args)
	cmd.SetOut(w)
	done := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		w.CloseWithError(err)
		done <- err
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line), func() error { cancel(); return <-done }
}

func TestServe(t *testing.T) {
	dir := newLog(t)
	address, stop := start(t, "serve", dir, "--listen", "127.0.0.1:0")
	for path, want := range map[string]int{
		"checkpoint": 200, "trusted_root.json": 200,
		"tile/0/000": 404, "tile/0/x001/000.p/5": 404,
		"": 404, "tile": 404, "tile/": 404, "log.key": 404, ".state/treeState": 404,
		"tile/../log.key": 404, "tile/0/000.p/../../../log.key": 404, "checkpoint/": 404, "tile/9999/000": 404,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want || bytes.Contains(body, []byte("PRIVATE")) {
			t.Errorf("%q: %s, %q, %v", path, resp.Status, body, err)
		}
	}
	post, err := http.Post(address+"checkpoint", "text/plain", strings.NewReader("x")) //nolint:noctx // of a test
	if err != nil || post.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", post, err)
	}
	post.Body.Close()

	var out bytes.Buffer
	cmd := New()
	cmd.SetArgs([]string{"monitor", address, "--log", filepath.Join(dir, "trusted_root.json"), "--state", filepath.Join(t.TempDir(), "seen")})
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(out.String(), "log.example.org: 0 entries") {
		t.Errorf("%s, %v", &out, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A watch goes on after an outage, and ends when it is told to.
func TestMonitorEvery(t *testing.T) {
	dir := newLog(t)
	line, stop := start(t, "monitor", dir, "--log", filepath.Join(dir, "trusted_root.json"), "--state", filepath.Join(t.TempDir(), "seen"), "--every", "1h")
	if !strings.HasPrefix(line, "log.example.org: 0 entries") {
		t.Error(line)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
