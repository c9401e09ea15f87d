package cradle_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/internal/cli/cradle"
	"github.com/kraudcloud/kattest/measure/stack"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"cradle-snp": func() { os.Exit(cli.Main(cradle.New(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

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
			return errors.Join(makeStack(filepath.Join(env.WorkDir, "stack")), makeLayout(filepath.Join(env.WorkDir, "hello")))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits, "flip": flip},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	data := []byte(ts.ReadFile(args[0]))
	data[offset] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// makeStack makes a boot stack that can be measured, though not booted.
func makeStack(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	s := stack.Stack{MediaType: stack.MediaType, Lock: strings.Repeat("0", 64), Cmdline: "console=ttyS0 quiet"}
	for name, data := range map[string][]byte{stack.Firmware: firmware(), stack.Kernel: []byte("kernel"), stack.Initrd: []byte("initrd")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
		f, err := stack.Describe(dir, name, "test")
		if err != nil {
			return err
		}
		s.Files = append(s.Files, f)
	}
	slices.SortFunc(s.Files, func(a, b stack.File) int { return strings.Compare(a.Name, b.Name) })
	b, err := s.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, stack.Manifest), b, 0o600)
}

// firmware is the least image that can be measured with kernel hashes: OVMF's
// table with a reset vector, the SEV hash table and one metadata section.
func firmware() []byte {
	const size, hashPage, metadata = 64 << 10, 0x10000, 0x200
	image := make([]byte, size)
	words := func(w ...uint32) (b []byte) {
		for _, w := range w {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		return b
	}
	const kernelHashes = 0x10
	copy(image[size-metadata:], append([]byte("ASEV"), words(16+12, 1, 1, hashPage, 4096, kernelHashes)...))
	var table []byte
	entry := func(id string, data []byte) {
		table = append(table, data...)
		table = binary.LittleEndian.AppendUint16(table, uint16(len(data)+18))
		table = append(table, guid(id)...)
	}
	entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", words(0xfffff000))
	entry("7255371f-3a3b-4b04-927b-1da6efa8d454", words(hashPage, 1024))
	entry("dc886566-984a-4798-a75e-5585a7bf67cc", words(metadata))
	table = binary.LittleEndian.AppendUint16(table, uint16(len(table)+18))
	table = append(table, guid("96b582de-1fb2-45f7-baea-a366c55a082d")...)
	copy(image[size-32-len(table):], table)
	return image
}

// guid encodes a GUID as UEFI does: its first three groups little-endian.
func guid(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil {
		panic(err)
	}
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
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
