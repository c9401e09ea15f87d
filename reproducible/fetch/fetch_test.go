package fetch_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

const content = "the bytes of a package"

func input(archive, name, data string) lock.Input {
	sum := sha256.Sum256([]byte(data))
	kind, path := lock.KindDeb, "pool/main/"+name+"_1.0+x~1_amd64.deb"
	if archive == lock.ArchiveGo {
		kind, path = lock.KindGo, "example.com/!m/@v/v1.0.0.zip"
	}
	return lock.Input{
		Name: name, Version: "1.0+x~1", Kind: kind, Archive: archive, Path: path,
		Sets: []string{"s"}, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]),
	}
}

func write(t *testing.T, data string, path ...string) string {
	t.Helper()
	file := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// aptFrom lets apt know one mirror, of the archive debian.
func aptFrom(t *testing.T, base string) {
	t.Helper()
	dir := t.TempDir()
	list := write(t, "deb "+base+" bookworm main\n", dir, "sources.list")
	conf := write(t, fmt.Sprintf("Dir::Etc::sourcelist %q;\nDir::Etc::sourceparts \"/dev/null\";\n", list), dir, "apt.conf")
	t.Setenv("APT_CONFIG", conf)
}

// check brings an input that holds content.
func check(t *testing.T, f *fetch.Fetcher, in lock.Input) {
	t.Helper()
	file, err := f.Get(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != content {
		t.Errorf("got %q, %v", got, err)
	}
	if want := filepath.Join(f.Cache, "sha256", in.SHA256); file != want {
		t.Errorf("got it in %s, want %s", file, want)
	}
	onlyWhole(t, f.Cache)
}

// onlyWhole checks that the cache holds nothing but files under their hashes.
func onlyWhole(t *testing.T, cache string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(cache, "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(cache, "sha256", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != e.Name() {
			t.Errorf("the cache holds %s with other bytes", e.Name())
		}
	}
}

func TestAptMirror(t *testing.T) {
	in := input(lock.ArchiveDebian, "tool", content)
	t.Run("http", func(t *testing.T) {
		root := t.TempDir()
		write(t, content, root, "debian", in.Path)
		var asked atomic.Int32
		files := http.FileServer(http.Dir(root))
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			files.ServeHTTP(w, r)
		}))
		defer server.Close()
		aptFrom(t, server.URL+"/debian/")
		f := &fetch.Fetcher{Cache: t.TempDir()}
		check(t, f, in)
		check(t, f, in)
		if n := asked.Load(); n != 1 {
			t.Errorf("the mirror was asked %d times, want once", n)
		}
	})
	t.Run("file", func(t *testing.T) {
		root := t.TempDir()
		write(t, content, root, in.Path)
		aptFrom(t, "file://"+root)
		check(t, &fetch.Fetcher{Cache: t.TempDir()}, in)
	})
}

func TestGoProxy(t *testing.T) {
	in := input(lock.ArchiveGo, "example.com/M", content)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/second/example.com/!m/@v/v1.0.0.zip" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, content)
	}))
	defer server.Close()
	t.Setenv("GOPROXY", server.URL+"/first,"+server.URL+"/second,direct")
	check(t, &fetch.Fetcher{Cache: t.TempDir()}, in)

	dir := t.TempDir()
	write(t, content, dir, in.Path)
	t.Setenv("GOPROXY", "file://"+dir)
	check(t, &fetch.Fetcher{Cache: t.TempDir()}, in)
}

func TestFolders(t *testing.T) {
	in := input(lock.ArchiveDebian, "tool", content)
	for _, name := range []string{"tool_1.0+x~1_amd64.deb", in.SHA256, "sha256/" + in.SHA256} {
		dir := t.TempDir()
		write(t, content, dir, name)
		f := &fetch.Fetcher{Cache: t.TempDir(), Folders: []string{t.TempDir(), dir}, Offline: true}
		check(t, f, in)
	}
}

// Bytes that differ are not used, and the next place is tried.
func TestWrongBytes(t *testing.T) {
	in := input(lock.ArchiveDebian, "tool", content)
	good := t.TempDir()
	write(t, content, good, in.File())
	for _, tt := range []struct{ name, data, want string }{
		{"other", strings.ToUpper(content), "SHA-256 "},
		{"short", content[1:], "21 bytes, the lock file says 22"},
		{"long", content + "x", "more than the 22 bytes"},
		{"empty", "", "0 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := t.TempDir()
			file := write(t, tt.data, bad, in.File())
			f := &fetch.Fetcher{Cache: t.TempDir(), Folders: []string{bad}, Offline: true}
			_, err := f.Get(t.Context(), in)
			if err == nil || !strings.Contains(err.Error(), file+": "+tt.want) {
				t.Errorf("folder: got error %v, want %q", err, tt.want)
			}
			onlyWhole(t, f.Cache)
			f.Folders = append(f.Folders, good)
			check(t, f, in)

			mirror := t.TempDir()
			write(t, tt.data, mirror, in.Path)
			aptFrom(t, "file://"+mirror)
			f = &fetch.Fetcher{Cache: t.TempDir()}
			_, err = f.Get(t.Context(), in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("mirror: got error %v, want %q", err, tt.want)
			}
			onlyWhole(t, f.Cache)

			var log strings.Builder
			f = &fetch.Fetcher{Cache: t.TempDir(), Folders: []string{good}, Offline: true, Log: &log}
			write(t, tt.data, f.Cache, "sha256", in.SHA256)
			check(t, f, in)
			if !strings.Contains(log.String(), tt.want) {
				t.Errorf("cache: logged %q, want %q", log.String(), tt.want)
			}
		})
	}
}

func TestUnavailable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	aptFrom(t, server.URL)
	t.Setenv("GOPROXY", server.URL)
	folder := t.TempDir()
	write(t, content, folder, "other_1.0+x~1_amd64.deb")
	wanted := []lock.Input{
		input(lock.ArchiveDebian, "tool", "x"), input(lock.ArchiveDebian, "other", content), input(lock.ArchiveGo, "m", "y"),
	}
	f := &fetch.Fetcher{Cache: t.TempDir(), Folders: []string{folder}}
	files, err := f.GetAll(t.Context(), wanted)
	if files != nil {
		t.Errorf("got %v", files)
	}
	unavailable, ok := errors.AsType[*fetch.UnavailableError](err)
	if !ok || len(unavailable.Missing) != 2 || unavailable.Missing[0].Input.Name != "m" || unavailable.Missing[1].Input.Name != "tool" {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"m 1.0+x~1 (v1.0.0.zip, SHA-256 " + wanted[2].SHA256 + ") is to be had nowhere", folder + ": not there", "404"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %q", err, want)
		}
	}
	if want := "put v1.0.0.zip into a folder and name it with --inputs DIR"; !strings.Contains(unavailable.Hint(), want) {
		t.Errorf("hint %q, want %q", unavailable.Hint(), want)
	}
	onlyWhole(t, f.Cache)
}

func TestNoMirrorKnown(t *testing.T) {
	aptFrom(t, "http://mirror.example/ubuntu noble main\n#")
	_, err := (&fetch.Fetcher{Cache: t.TempDir()}).Get(t.Context(), input(lock.ArchiveDebian, "tool", content))
	if err == nil || !strings.Contains(err.Error(), `name no mirror of the archive "debian"`) {
		t.Errorf("got %v", err)
	}
}

// A server that is gone in the middle, and a user who gives up.
func TestInterrupted(t *testing.T) {
	in := input(lock.ArchiveGo, "m", content)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		fmt.Fprint(w, content[:5])
	}))
	defer server.Close()
	t.Setenv("GOPROXY", server.URL)
	f := &fetch.Fetcher{Cache: t.TempDir()}
	if _, err := f.Get(t.Context(), in); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("got %v", err)
	}
	onlyWhole(t, f.Cache)
}

func TestConcurrently(t *testing.T) {
	mirror, cache := t.TempDir(), t.TempDir()
	var wanted []lock.Input
	for i := range 12 {
		in := input(lock.ArchiveDebian, fmt.Sprintf("p%d", i), fmt.Sprint(content, i))
		write(t, fmt.Sprint(content, i), mirror, in.Path)
		wanted = append(wanted, in)
	}
	aptFrom(t, "file://"+mirror)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			var log strings.Builder
			f := &fetch.Fetcher{Cache: cache, Log: &log}
			files, err := f.GetAll(t.Context(), wanted)
			if err != nil || len(files) != len(wanted) {
				t.Errorf("got %d files, %v", len(files), err)
			}
		})
	}
	all.Wait()
	onlyWhole(t, cache)
}
