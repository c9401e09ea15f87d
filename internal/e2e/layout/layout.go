// Package layout makes the image that the tests' guests run: the program in
// ../workload, users, and data that is found in an image by its pattern. It is for
// tests alone.
package layout

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Blob returns the content of /data/blob, 64 KiB.
func Blob() []byte { return bytes.Repeat([]byte("a block of the workload's data\n\n"), 2048) }

// Holes returns the content of /data/holes: text between runs of zeros.
func Holes() string {
	zeros := strings.Repeat("\x00", 1<<20)
	return zeros + "in the midst" + zeros
}

// Capability is a file capability as setcap writes it: cap_net_raw=ep.
const Capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// Write makes an OCI layout in dir with the workload's image. The program is in the file
// named.
func Write(dir, workload string) error {
	program, err := os.ReadFile(workload)
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		b, err := rootTar(program)
		return io.NopCloser(bytes.NewReader(b)), err
	})
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	img, err = mutate.ConfigFile(img, withConfig(img))
	if err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(img)
}

func withConfig(img v1.Image) *v1.ConfigFile {
	file, err := img.ConfigFile()
	if err != nil {
		panic(err) // of an image just made
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	file.Config = v1.Config{
		Entrypoint: []string{"workload"},
		Env:        []string{"PATH=/usr/bin:/bin", "FROM_IMAGE=yes"},
		WorkingDir: "/srv/work",
	}
	return file
}

func rootTar(program []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range []struct {
		tar.Header
		data string
	}{
		{tar.Header{Name: "bin/", Mode: 0o755, Typeflag: tar.TypeDir}, ""},
		{tar.Header{Name: "bin/workload", Mode: 0o755}, string(program)},
		{tar.Header{Name: "etc/", Mode: 0o755, Typeflag: tar.TypeDir}, ""},
		{tar.Header{Name: "etc/passwd", Mode: 0o644}, "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv/home:/bin/sh\n"},
		{tar.Header{Name: "etc/group", Mode: 0o644}, "root:x:0:\napp:x:1001:\nextra:x:1002:app\n"},
		{tar.Header{Name: "etc/text", Mode: 0o644}, "no program\n"},
		{tar.Header{Name: "data/", Mode: 0o755, Typeflag: tar.TypeDir}, ""},
		{tar.Header{Name: "data/blob", Mode: 0o644}, string(Blob())},
		{tar.Header{Name: "data/same", Typeflag: tar.TypeLink, Linkname: "data/blob"}, ""},
		{tar.Header{Name: "data/holes", Mode: 0o644}, Holes()},
		{tar.Header{Name: "data/!first", Mode: 0o644}, "first\n"},
		{tar.Header{Name: "data/capable", Mode: 0o4755, Uid: 1000, Gid: 1001, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": Capability,
		}}, "c"},
		{tar.Header{Name: "srv/work/", Mode: 0o755, Typeflag: tar.TypeDir}, ""},
		{tar.Header{Name: "tmp/", Mode: 0o1777, Typeflag: tar.TypeDir}, ""},
	} {
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		e.Size = int64(len(e.data))
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}
