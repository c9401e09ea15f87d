package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// tarStore is an uncompressed tar file, read in place.
type tarStore struct {
	file  string
	parts map[string]section
	links map[string]string
}

type section struct{ offset, size int64 }

// maxArchiveEntries bounds the files in an archive around an image.
const maxArchiveEntries = 1 << 16

func newTarStore(file string) (*tarStore, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &tarStore{file, map[string]section{}, map[string]string{}}
	tr := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, fmt.Errorf("not an uncompressed tar file: entry %d: %w", n, err)
		}
		if n == maxArchiveEntries {
			return nil, fmt.Errorf("more than %d entries", maxArchiveEntries)
		}
		name := path.Clean("/" + h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			// tar.Reader reads no further than the header it returns.
			offset, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			s.parts[name] = section{offset, h.Size}
		case tar.TypeSymlink: // older dockers link to a layer that is there already
			s.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			s.links[name] = path.Clean("/" + h.Linkname)
		}
	}
}

// find follows one link.
func (s *tarStore) find(name string) (section, error) {
	name = path.Clean("/" + name)
	if to, ok := s.links[name]; ok {
		name = to
	}
	part, ok := s.parts[name]
	if !ok {
		return section{}, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return part, nil
}

func (s *tarStore) open(name string) (io.ReadCloser, error) {
	part, err := s.find(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(s.file)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, part.offset, part.size), f}, nil
}

// archived is one image of a docker-archive's manifest.json.
type archived struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// openArchive finds an image in a docker-archive. Such an archive holds no
// manifest: the image's digest is that of the manifest its files would have.
func openArchive(s store, manifest []byte, choice string) (*Image, error) {
	var all []archived
	if err := json.Unmarshal(manifest, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", archiveFile, err)
	}
	one, err := chooseArchived(all, choice)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", archiveFile, err)
	}
	files := map[v1.Hash]string{}
	describe := func(name string, mediaType types.MediaType) (v1.Descriptor, error) {
		rc, err := s.open(name)
		if err != nil {
			return v1.Descriptor{}, err
		}
		defer rc.Close()
		digest, size, err := v1.SHA256(rc)
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("%s: %w", name, err)
		}
		files[digest] = name
		return v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}, nil
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2}
	if m.Config, err = describe(one.Config, types.DockerConfigJSON); err != nil {
		return nil, err
	}
	for _, name := range one.Layers {
		mediaType, err := packing(s, name)
		if err != nil {
			return nil, err
		}
		desc, err := describe(name, mediaType)
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, desc)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	img, err := newImage(raw, func(desc v1.Descriptor) (io.ReadCloser, error) { return s.open(files[desc.Digest]) })
	if err != nil {
		return nil, err
	}
	if len(one.RepoTags) > 0 {
		img.Reference = one.RepoTags[0]
	}
	return img, nil
}

// packing says whether a layer in the archive is packed.
func packing(s store, name string) (types.MediaType, error) {
	rc, err := s.open(name)
	if err != nil {
		return "", err
	}
	defer rc.Close()
	magic := make([]byte, 2)
	if _, err := io.ReadFull(rc, magic); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if bytes.Equal(magic, []byte{0x1f, 0x8b}) { // RFC 1952, section 2.3.1
		return types.DockerLayer, nil
	}
	return types.DockerUncompressedLayer, nil
}

func chooseArchived(all []archived, choice string) (archived, error) {
	var found []archived
	var names []string
	for _, one := range all {
		if choice == "" || slices.ContainsFunc(one.RepoTags, func(tag string) bool {
			return tag == choice || strings.HasSuffix(tag, ":"+choice)
		}) {
			found = append(found, one)
		}
		names = append(names, one.RepoTags...)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return archived{}, fmt.Errorf("no image %q, there is: %s", choice, strings.Join(names, ", "))
	default:
		return archived{}, fmt.Errorf("%d images, choose one by :TAG of: %s", len(found), strings.Join(names, ", "))
	}
}
