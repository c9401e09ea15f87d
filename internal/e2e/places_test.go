package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kraudcloud/kattest/launcher"
)

// volumesLayout is the workload's image with a user of its own, and three volumes: what
// an image declares is there with owner and mode, there as root's, or not there at all.
func volumesLayout(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "var/lib/app/", Mode: 0o2750, Uid: 1000, Gid: 1001, Typeflag: tar.TypeDir},
		{Name: "var/lib/app/seed", Mode: 0o640, Uid: 1000, Gid: 1001, Typeflag: tar.TypeReg},
		{Name: "var/lib/roots/", Mode: 0o755, Typeflag: tar.TypeDir},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(s.layout)
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
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	c.User, c.Volumes = "app", map[string]struct{}{"/var/lib/app": {}, "/var/lib/roots": {}, "/var/lib/new": {}}
	if img, err = mutate.Config(img, c); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	return dir
}

// another is a folder with what an owner has on a machine of his own: the spec that he
// expects, what he trusts, his key and his secret. Nothing there leads to the guest's
// folder.
func another(t *testing.T, spec, key, secret string) (dir string, options []string) {
	t.Helper()
	dir = t.TempDir()
	line := append([]string{"--sign", key, "--secret", "token=" + file(t, secret)}, s.references(spec)...)
	for i := 0; i < len(line); i += 2 {
		name, value, isSecret := strings.Cut(line[i+1], "=")
		from := name
		if isSecret {
			from = value
		}
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to := fmt.Sprint("file", i)
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if isSecret {
			to = name + "=" + to
		}
		options = append(options, line[i], to)
	}
	return dir, options
}

// A volume of the image takes writes though the root takes none, with owner and mode
// from the image, and what is written there is there after a restart, and not in the
// next guest; tmpfs and the secret are what they are on another root. The owner hands
// over from elsewhere, once for each guest, and not to a guest of another spec.
func TestPlaces(t *testing.T) {
	private, public := ownerKey(t)
	const secret = "a-secret-from-outside"
	dir := filepath.Join(t.TempDir(), "vm")
	summon := func(dir string, more ...string) {
		t.Helper()
		line := append([]string{
			"summon", "--stack", s.stack, "--console", "output", "--read-only", "--restart", "on-failure:1", "--tmpfs", "/scratch:size=1m,mode=1777",
			"--owner", public, "--secret", "token,mode=400,uid=1000",
		}, more...)
		line = append(line, dir, volumesLayout(t), "places", "/run/secrets/token", "/var/lib/app", "/var/lib/roots", "/var/lib/new", "/srv/work", "/scratch")
		run(t, s.command("cradle-snp", line...)).want(t, 0)
	}
	summon(dir)
	expected := filepath.Join(t.TempDir(), "vm")
	summon(expected, "--hostname", "other")
	wrong, wrongOptions := another(t, expected+"/spec.json", private, secret)
	right, rightOptions := another(t, dir+"/spec.json", private, secret)
	unlock := func(g *guest, where string, options []string) result {
		t.Helper()
		cmd := s.command("kattest", append([]string{"unlock", g.state.Agent.String()}, options...)...)
		cmd.Dir, cmd.Env = where, []string{"HOME=" + where}
		return run(t, cmd)
	}

	const rest = "/var/lib/roots 755 0:0 [] EACCES, /var/lib/new 755 0:0 [] EACCES, /srv/work 755 0:0 [] EROFS"
	want := []string{
		"found /var/lib/app 2750 1000:1001 [seed] ok, " + rest + ", /scratch 1777 0:0 [] ENOSPC; secret of 21 bytes",
		"found /var/lib/app 2750 1000:1001 [seed written] ok, " + rest + ", /scratch 1777 0:0 [] ENOSPC; secret of 21 bytes",
	}
	for n := range 2 {
		g := startUntil(t, dir, "serving")
		if n == 0 {
			unlock(g, wrong, wrongOptions).want(t, 5, "host-data")
		}
		unlock(g, right, rightOptions).want(t, 0, "taken: token")
		<-g.done
		result{stdout: g.out.String(), exit: g.cmd.ProcessState.ExitCode()}.want(t, 3)
		var found []string
		for line := range strings.Lines(g.out.String()) {
			if strings.HasPrefix(line, "found ") {
				found = append(found, strings.TrimSpace(line))
			}
		}
		if diff := cmp.Diff(want, found); diff != "" {
			t.Errorf("guest %d (-want +got):\n%s", n, diff)
		}
		if strings.Contains(g.out.String()+strings.Join(lines(t, filepath.Join(dir, launcher.ConsoleFile)), "\n"), secret) {
			t.Error("the secret reached the host")
		}
	}
}
