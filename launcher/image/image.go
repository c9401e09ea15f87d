// Package image turns an OCI image into what a guest boots: one EROFS image
// with a dm-verity tree behind it, and the container's process.
//
// The same image gives the same bytes and the same root hash on every machine:
// the layers are merged as a container runtime would, entries are sorted, the
// root directory is 0755 and root's, the file system's build time and UUID are
// zero, and the tree's salt follows from the image's configuration.
//
// Every blob is checked against the digest that names it, and every unpacked
// layer against the configuration. The package does not check who made the
// image: no signature is looked at, and a tag is what the registry says it is.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ErrUnavailable says that a registry could not be reached or did not serve;
// trying again may help.
var ErrUnavailable = errors.New("registry unavailable")

// maxBlob bounds a manifest or configuration, in bytes.
const maxBlob = 8 << 20

// Image is a container image for linux/amd64 whose manifest and configuration
// were checked against their digests. Its layers are read by Convert.
type Image struct {
	// Reference is the image's name, without a path of this machine; may be empty.
	Reference string
	// Digest is the manifest's digest.
	Digest v1.Hash

	configDigest v1.Hash
	config       v1.ConfigFile
	layers       []layer
}

// layer is a layer's blob, packed or not.
type layer struct {
	desc   v1.Descriptor
	diffID v1.Hash
	open   func() (io.ReadCloser, error)
}

// opener opens the blob that a descriptor names. Its bytes are not checked yet.
type opener func(v1.Descriptor) (io.ReadCloser, error)

// newImage reads the manifest raw, which is already checked, and the
// configuration it names.
func newImage(raw []byte, open opener) (*Image, error) {
	digest := v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(raw))}
	manifest, err := parseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", digest, err)
	}
	configRaw, err := readBlob(manifest.Config, open)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	img, err := newConfiguredImage(configRaw, manifest.Layers, open)
	if err != nil {
		return nil, err
	}
	img.Digest = digest
	return img, nil
}

// newConfiguredImage joins a configuration and its layers.
func newConfiguredImage(configRaw []byte, layers []v1.Descriptor, open opener) (*Image, error) {
	img := &Image{configDigest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(configRaw))}}
	if err := json.Unmarshal(configRaw, &img.config); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", img.configDigest, err)
	}
	if c := img.config; c.OS != "linux" || c.Architecture != "amd64" {
		return nil, fmt.Errorf("the image is for %s/%s, want linux/amd64", orNone(c.OS), orNone(c.Architecture))
	}
	diffIDs := img.config.RootFS.DiffIDs
	if len(diffIDs) != len(layers) {
		return nil, fmt.Errorf("configuration %s: rootfs.diff_ids: %d entries for %d layers", img.configDigest, len(diffIDs), len(layers))
	}
	for i, desc := range layers {
		if err := checkHash(diffIDs[i]); err != nil {
			return nil, fmt.Errorf("configuration %s: rootfs.diff_ids[%d]: %w", img.configDigest, i, err)
		}
		img.layers = append(img.layers, layer{desc, diffIDs[i], func() (io.ReadCloser, error) { return open(desc) }})
	}
	return img, nil
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func parseManifest(raw []byte) (*v1.Manifest, error) {
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	switch m.Config.MediaType {
	case types.OCIConfigJSON, types.DockerConfigJSON:
	default:
		return nil, fmt.Errorf("config.mediaType: %q is not a container image's", m.Config.MediaType)
	}
	if err := checkHash(m.Config.Digest); err != nil {
		return nil, fmt.Errorf("config.digest: %w", err)
	}
	for i, l := range m.Layers {
		switch l.MediaType {
		case types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer, types.DockerLayer, types.DockerUncompressedLayer:
		default:
			return nil, fmt.Errorf("layers[%d].mediaType: %q is not supported", i, l.MediaType)
		}
		if err := checkHash(l.Digest); err != nil {
			return nil, fmt.Errorf("layers[%d].digest: %w", i, err)
		}
	}
	return &m, nil
}

func checkHash(h v1.Hash) error {
	if h.Algorithm != "sha256" || len(h.Hex) != 2*sha256.Size {
		return fmt.Errorf("%q is not a SHA-256", h)
	}
	return nil
}

// readBlob reads a small blob whole and checks it.
func readBlob(desc v1.Descriptor, open opener) ([]byte, error) {
	if desc.Size < 0 || desc.Size > maxBlob {
		return nil, fmt.Errorf("blob %s: %d bytes, want at most %d", desc.Digest, desc.Size, maxBlob)
	}
	rc, err := open(desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	blob := newBlobReader(rc, desc)
	data, err := io.ReadAll(blob)
	if err != nil {
		return nil, err
	}
	return data, blob.finish()
}

// blobReader reads a blob of at most the size its descriptor gives, and checks
// at the end that it is the one named.
type blobReader struct {
	desc v1.Descriptor
	r    io.Reader
	hash hash.Hash
	n    int64
}

func newBlobReader(r io.Reader, desc v1.Descriptor) *blobReader {
	return &blobReader{desc: desc, r: r, hash: sha256.New()}
}

func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.hash.Write(p[:n])
	if b.n += int64(n); b.n > b.desc.Size {
		return 0, fmt.Errorf("blob %s: more than the %d bytes of its descriptor", b.desc.Digest, b.desc.Size)
	}
	return n, err
}

// finish reads what is left and checks size and digest.
func (b *blobReader) finish() error {
	if _, err := io.Copy(io.Discard, b); err != nil {
		return err
	}
	if b.n != b.desc.Size {
		return fmt.Errorf("blob %s: %d bytes, its descriptor says %d", b.desc.Digest, b.n, b.desc.Size)
	}
	if got := fmt.Sprintf("%x", b.hash.Sum(nil)); got != b.desc.Digest.Hex {
		return fmt.Errorf("blob %s: its bytes hash to sha256:%s", b.desc.Digest, got)
	}
	return nil
}

// contextReader stops reading when its context ends, and counts.
type contextReader struct {
	ctx  context.Context
	r    io.Reader
	read func(n int)
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.read(n)
	return n, err
}
