package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/jackc/pgx/v5"
)

// examples are the images of examples/ but MariaDB's, which the demo runs. Each
// does its job, asked from the host.
var examples = []struct {
	name    string
	port    int
	options []string
	job     func(ctx context.Context, address string) error
}{
	{"busybox", 80, nil, pageSays("confidential BusyBox", "")},
	{"nginx", 80, nil, pageSays("confidential nginx", "")},
	{"static", 8080, nil, pageSays("says go1.", "Europe/Berlin")},
	{"redis", 6379, nil, redisKeeps},
	{"postgres", 5432, []string{"-e", "POSTGRES_PASSWORD=a password"}, postgresAnswers},
}

func TestExamples(t *testing.T) {
	bin := t.TempDir()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, tt := range examples {
		t.Run(tt.name, func(t *testing.T) {
			reference := host + "/" + tt.name + ":v1"
			pushExample(t, makeExample(t, bin, tt.name), reference)
			dir := filepath.Join(t.TempDir(), "vm")
			line := append([]string{"summon", "--stack", s.stack, "--console", "output", "-p", fmt.Sprint(tt.port)}, tt.options...)
			run(t, s.command("cradle-snp", append(line, dir, reference)...)).want(t, 0, "root hash")

			g := start(t, dir)
			f := g.state.Forwards[0]
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			err := tt.job(ctx, fmt.Sprintf("%s:%d", f.HostAddress, f.HostPort))
			for err != nil && ctx.Err() == nil && g.runs() { // QEMU accepts before the guest listens
				time.Sleep(200 * time.Millisecond)
				err = tt.job(ctx, fmt.Sprintf("%s:%d", f.HostAddress, f.HostPort))
			}
			if err != nil {
				t.Fatalf("%v; the guest said:\n%s", err, g.out)
			}
			g.stop(t)

			// The twin: a bit of the root directory, and nothing of it starts.
			flip(t, filepath.Join(dir, "root.img"), 4096)
			if r := boot(t, dir); r.exit == 0 || strings.Contains(r.stderr, "s started") {
				t.Errorf("a changed file system ran, exit status %d:\n%s", r.exit, r.stderr)
			}
		})
	}
}

// runs says whether the guest has not ended.
func (g *guest) runs() bool {
	select {
	case <-g.done:
		return false
	default:
		return true
	}
}

// makeExample returns the layout that the example's command makes. It is kept in
// the user's cache by the command's bytes, lock file included.
func makeExample(t *testing.T, bin, name string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	command := filepath.Join(bin, name)
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", command, "./examples/"+name)
	build.Dir = root
	run(t, build).want(t, 0)
	data, err := os.ReadFile(command)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(cache, "kattest", "examples", fmt.Sprintf("%x", sha256.Sum256(data)))
	if _, err := os.Stat(filepath.Join(out, "index.json")); err == nil && name != "static" { // whose program is built apart
		return out
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command, "--out", out)
	cmd.Dir = root
	run(t, cmd).want(t, 0, "sha256:")
	return out
}

func pushExample(t *testing.T, dir, reference string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
}

// flip changes a bit of a file.
func flip(t *testing.T, file string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
}

func pageSays(text, path string) func(context.Context, string) error {
	return func(ctx context.Context, address string) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/"+path, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(body), text)) {
			err = fmt.Errorf("%s: %s, want %q", resp.Status, body, text)
		}
		return err
	}
}

// redisKeeps sets a value and asks for it.
func redisKeeps(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{Timeout: 20 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "SET key 1234\r\nGET key\r\n"); err != nil {
		return err
	}
	const want = "+OK\r\n$4\r\n1234\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("redis says %q, want %q", got, want)
	}
	return nil
}

func postgresAnswers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, "postgres://postgres:a%20password@"+address+"/postgres?sslmode=disable")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var version string
	var sum int
	if err := conn.QueryRow(ctx, "SELECT version(), sum(n) FROM generate_series(1, 100) n").Scan(&version, &sum); err != nil {
		return err
	}
	if sum != 5050 || !strings.Contains(version, "PostgreSQL 15") {
		return fmt.Errorf("%d by %s", sum, version)
	}
	if other, err := pgx.Connect(ctx, "postgres://postgres:guess@"+address+"/postgres?sslmode=disable"); err == nil {
		return errors.Join(errors.New("another password is taken"), other.Close(ctx))
	}
	return nil
}
