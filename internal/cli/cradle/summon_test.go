package cradle_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli/clitest"
	"github.com/kraudcloud/kattest/internal/cli/cradle"
)

func TestMain(m *testing.M) { clitest.Main(m, "cradle-snp", cradle.New) }

// TestSummonScripts runs testdata/summon; KATTEST_UPDATE=1 rewrites what they
// compare with. Scripts find a boot stack in $WORK/stack and an OCI layout with
// one image in $WORK/hello. Beside testscript's own they have
//
//	exits CODE COMMAND [ARG...]   run a command that must end with that exit code
//	flip FILE OFFSET              change one byte
func TestSummonScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "summon"),
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("KATTEST_UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("KATTEST_STACK", filepath.Join(env.WorkDir, "stack"))
			return errors.Join(clitest.WriteStack(filepath.Join(env.WorkDir, "stack"), "console=ttyS0 quiet"), makeLayout(filepath.Join(env.WorkDir, "hello")))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": clitest.Exits, "flip": clitest.Flip},
	})
}

func makeLayout(dir string) error {
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	const content = "#!/bin/sh\n"
	err := errors.Join(
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/hello", Mode: 0o755, Size: int64(len(content))}),
		write(w, content), w.Close())
	if err != nil {
		return err
	}
	// Not packed, so that its digest does not depend on Go's compressor.
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(data.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		return err
	}
	if img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: "amd64",
		RootFS: rootFS(img),
		Config: v1.Config{
			Entrypoint: []string{"/bin/hello"}, Cmd: []string{"world"}, Env: []string{"GREETING=hello"},
			User: "1000", ExposedPorts: map[string]struct{}{"80/tcp": {}},
		},
	}); err != nil {
		return err
	}
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "v1"}))
}

func write(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

func rootFS(img v1.Image) v1.RootFS {
	c, err := img.ConfigFile()
	if err != nil {
		panic(err)
	}
	return c.RootFS
}
