package reproducible

import (
	"archive/zip"
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/fetch"
	"github.com/kraudcloud/kattest/reproducible/firmware"
	"github.com/kraudcloud/kattest/reproducible/initrd"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// agentBuilder is a builder of this checkout's agent, from a copy of its
// sources in a folder of that name.
func agentBuilder(t *testing.T, folder string, jobs int) *builder {
	t.Helper()
	files, err := agentSources("..")
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(t.TempDir(), folder)
	for name, data := range files {
		if err := writeFile(filepath.Join(source, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBuilder(Options{
		Source: source, Lock: filepath.Join("..", "reproducible", "lock.json"), Out: t.TempDir(), Cache: t.TempDir(), Jobs: jobs,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.fetch.Cache = filepath.Join(user, "kattest") // the toolchain has 70 MB
	return b
}

func buildAgent(t *testing.T, b *builder) ([]byte, []stack.Stage) {
	t.Helper()
	a, err := b.agent()
	if err != nil {
		t.Fatal(err)
	}
	dir, stages, err := b.cache.get(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, stack.Agent))
	if err != nil {
		t.Fatal(err)
	}
	return data, stages
}

// Two builds, in folders of other names and lengths, with other numbers of jobs,
// other surroundings and nothing shared give one agent: the second is varied as
// BuildTwice does it, has an archive of the first one's inputs, and no cache, module
// cache, mirror or proxy.
func TestAgentIsReproducible(t *testing.T) {
	here := agentBuilder(t, "a", 1)
	first, stages := buildAgent(t, here)
	archive, options, _ := exported(t, here)
	options.Folders = []string{filepath.Join(t.TempDir(), "inputs.tar")}
	if err := os.WriteFile(options.Folders[0], archive, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"GOFLAGS": "-tags=surprise", "GOAMD64": "v3", "CGO_ENABLED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8",
		"GOPROXY": "off", "GOMODCACHE": t.TempDir(),
	} {
		t.Setenv(name, value)
	}
	there := agentBuilder(t, "another checkout, of a longer name", 3)
	there.Folders, there.vary = options.Folders, t.TempDir()
	there.fetch = &fetch.Fetcher{Cache: t.TempDir(), Folders: options.Folders, Offline: true}
	old := unix.Umask(umask)
	second, again := buildAgent(t, there)
	unix.Umask(old)
	if !bytes.Equal(first, second) {
		t.Errorf("%d bytes and %d bytes differ", len(first), len(second))
	}
	if diff := cmp.Diff(stages, again); diff != "" || len(stages) != 2 {
		t.Errorf("stages %v (-first +second):\n%s", stages, diff)
	}

	info, err := buildinfo.Read(bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	toolchain, err := agentBuilder(t, "c", 1).input(lock.KindGo, toolchainModule)
	if err != nil {
		t.Fatal(err)
	}
	if want := "v0.0.1-" + info.GoVersion + ".linux-amd64"; toolchain.Version != want {
		t.Errorf("built by %s, the lock file names %s", info.GoVersion, toolchain.Version)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	want := map[string]string{
		"-buildmode": "exe", "-compiler": "gc", "-trimpath": "true", "-tags": "nethttpomithttp2",
		"CGO_ENABLED": "0", "GOARCH": "amd64", "GOOS": "linux", "GOAMD64": "v1",
	}
	for key, value := range want {
		if settings[key] != value {
			t.Errorf("%s is %q, want %q", key, settings[key], value)
		}
	}
}

// What the agent is made from are the packages that it reaches, without tests,
// for this platform; nothing else moves its key.
func TestAgentSources(t *testing.T) {
	source := t.TempDir()
	for name, data := range map[string]string{
		"go.mod":                       "module " + module + "\n",
		"go.sum":                       "",
		"README.md":                    "",
		"cmd/cradle-init/main.go":      "package main\n\nimport \"" + module + "/guest\"\n\nfunc main() { guest.Main() }\n",
		"cmd/cradle-init/x_test.go":    "package main\n",
		"cmd/kattest/main.go":          "package main\n",
		"guest/guest.go":               "package guest\n\nimport (\n\t_ \"embed\"\n\n\t_ \"example.com/third\"\n\t_ \"" + module + "/guest/pod\"\n)\n\n//go:embed text/*.txt\nvar text string\n",
		"guest/guest_windows.go":       "package guest\n",
		"guest/guest_linux.go":         "package guest\n",
		"guest/tagged.go":              "//go:build surprise\n\npackage guest\n",
		"guest/text/one.txt":           "one",
		"guest/text/two.md":            "two",
		"guest/pod/pod.go":             "package pod\n\nimport _ \"unsafe\"\n",
		"guest/pod/sum_amd64.s":        "",
		"guest/pod/sum_arm64.s":        "",
		"guest/unreached/unreached.go": "package unreached\n",
	} {
		if err := writeFile(filepath.Join(source, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := agentSources(source)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for name := range files {
		got = append(got, name)
	}
	slices.Sort(got)
	want := []string{
		"cmd/cradle-init/main.go", "go.mod", "go.sum", "guest/guest.go", "guest/guest_linux.go",
		"guest/pod/pod.go", "guest/pod/sum_amd64.s", "guest/text/one.txt",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}

	if err := os.RemoveAll(filepath.Join(source, "guest", "text")); err != nil {
		t.Fatal(err)
	}
	if files, err := agentSources(source); err == nil || files != nil || !strings.Contains(err.Error(), "guest: embedding text/*.txt: matches no file") {
		t.Errorf("embedding nothing: %v", err)
	}
}

func TestUnpackToolchain(t *testing.T) {
	write := func(members map[string]string) string {
		name := filepath.Join(t.TempDir(), "go.zip")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		z := zip.NewWriter(f)
		for member, data := range members {
			w, err := z.Create(member)
			if err == nil {
				_, err = w.Write([]byte(data))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(z.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		return name
	}
	dir := t.TempDir()
	if err := unpackToolchain(write(map[string]string{
		"m@v1/bin/go": "go", "m@v1/pkg/tool/linux_amd64/link": "link", "m@v1/src/_go.mod": "module std",
		"m@v1/src/a/a.go": "package a", "m@v1/src/a/a_test.go": "", "m@v1/src/a/testdata/x": "", "m@v1/test/x.go": "",
	}), "m@v1/", dir); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		got[name] = info.Mode().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"bin/go": "-rwxr-xr-x", "pkg/tool/linux_amd64/link": "-rwxr-xr-x", "src/go.mod": "-rw-r--r--", "src/a/a.go": "-rw-r--r--",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("unpacked (-want +got):\n%s", diff)
	}
	for _, member := range []string{"m@v1/../../escaped", "other/bin/go", "m@v1//etc/passwd"} {
		err := unpackToolchain(write(map[string]string{member: ""}), "m@v1/", t.TempDir())
		if err == nil || !strings.Contains(err.Error(), "does not stand below m@v1/") {
			t.Errorf("%s: %v", member, err)
		}
	}
}

// An input that is nowhere ends the build, named, before anything is written.
func TestBuildNamesWhatIsNowhere(t *testing.T) {
	source := lock.Input{
		Name: firmware.Source, Version: "1", Kind: lock.KindSource, Archive: lock.ArchiveDebian, Path: "pool/e/edk2.orig.tar.xz",
		Sets: []string{firmwareSet}, Size: 10, SHA256: strings.Repeat("ab", 32),
	}
	tool := lock.Input{
		Name: "make", Version: "1", Kind: lock.KindDeb, Archive: lock.ArchiveDebian, Path: "pool/m/make.deb",
		Sets: []string{firmwareRootSet}, Size: 10, SHA256: strings.Repeat("cd", 32),
	}
	l, err := lock.New([]lock.Set{
		{Name: firmwareSet, Kind: lock.KindSource, Suites: []string{"debian/sid"}, Packages: []string{firmware.Source}},
		{Name: firmwareRootSet, Kind: lock.KindDeb, Suites: []string{"debian/sid"}, Packages: []string{"make"}},
	}, []lock.Input{source, tool})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "lock.json")
	if err := l.Write(file); err != nil {
		t.Fatal(err)
	}
	b, err := newBuilder(Options{Source: dir, Lock: file, Out: filepath.Join(dir, "out"), Cache: filepath.Join(dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	b.fetch.Offline = true
	a, err := b.firmware()
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = b.cache.get(context.Background(), a)
	missing, ok := errors.AsType[*fetch.UnavailableError](err)
	// The clean root comes first.
	if !ok || len(missing.Missing) != 1 || missing.Missing[0].Input.Name != "make" {
		t.Errorf("error %v", err)
	}
	if _, err := b.kernel(); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "0 inputs of kind deb are named linux-source-6.12, want one") {
		t.Errorf("a lock file without a kernel: %v", err)
	}
}

func TestInitrdHoldsTheAgent(t *testing.T) {
	agent := filepath.Join(t.TempDir(), stack.Agent)
	if err := os.WriteFile(agent, []byte("agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := &builder{cache: cache{dir: t.TempDir(), log: &progress{}}}
	a, err := b.initrd(agent)
	if err != nil {
		t.Fatal(err)
	}
	dir, _, err := b.cache.get(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(filepath.Join(dir, stack.Initrd))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := initrd.Parse(archive)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]byte{}
	for _, e := range entries {
		got[e.Name] = e.Data
	}
	want := map[string][]byte{
		"dev": nil, "dev/console": nil, "dev/null": nil, "proc": nil, "run": nil, "sys": nil, "init": []byte("agent"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}
