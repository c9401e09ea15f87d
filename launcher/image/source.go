package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Open finds an image by reference, which is one of
//
//	DIR, DIR:TAG, DIR@sha256:…      an OCI image layout
//	FILE, FILE:TAG, FILE@sha256:…   an OCI layout or docker-archive in a tar file
//	NAME, NAME:TAG, NAME@sha256:…   an image in a registry, docker.io's if none is named
//
// A reference that begins with / or . is a path; any other is one if such a
// layout or file exists.
func Open(ctx context.Context, reference string) (*Image, error) {
	path, choice, ok := localPath(reference)
	if !ok {
		return openRegistry(ctx, reference)
	}
	img, err := openLocal(path, choice)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", reference, err)
	}
	return img, nil
}

// localPath splits a reference into a path and what is chosen there.
func localPath(reference string) (path, choice string, ok bool) {
	if isImage(reference) {
		return reference, "", true
	}
	for _, sep := range []string{"@", ":"} {
		i := strings.LastIndex(reference, sep)
		if i > 0 && !strings.Contains(reference[i:], "/") && isImage(reference[:i]) {
			return reference[:i], reference[i+1:], true
		}
	}
	return reference, "", strings.HasPrefix(reference, "/") || strings.HasPrefix(reference, ".")
}

func isImage(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	if info.IsDir() {
		_, err := os.Stat(filepath.Join(path, indexFile))
		return err == nil
	}
	return info.Mode().IsRegular()
}

// Files at the root of a layout or archive.
const (
	indexFile   = "index.json"    // OCI image-spec 1.1, image-layout.md
	archiveFile = "manifest.json" // docker's image-spec 1.2
)

// store opens the files of a layout or archive by their slash-separated names.
type store interface {
	open(name string) (io.ReadCloser, error)
}

func openLocal(path, choice string) (*Image, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	var s store = dirStore(path)
	if !info.IsDir() {
		if s, err = newTarStore(path); err != nil {
			return nil, err
		}
	}
	// Newer dockers save both; the layout has the registry's own manifest.
	index, err := readFile(s, indexFile)
	if err == nil {
		return openLayout(s, index, choice)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	manifest, err := readFile(s, archiveFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("neither %s nor %s in it: not an OCI layout or a docker-archive", indexFile, archiveFile)
	}
	if err != nil {
		return nil, err
	}
	return openArchive(s, manifest, choice)
}

// readFile reads a small file whole. Its bytes are not checked.
func readFile(s store, name string) ([]byte, error) {
	rc, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, maxBlob+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxBlob {
		return nil, fmt.Errorf("%s: more than %d bytes", name, maxBlob)
	}
	return data, nil
}

// dirStore is a folder.
type dirStore string

func (d dirStore) open(name string) (io.ReadCloser, error) {
	f, err := os.OpenInRoot(string(d), filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s: not a regular file", name), err, f.Close())
	}
	return f, nil
}

// openLayout finds an image in an OCI layout.
func openLayout(s store, index []byte, choice string) (*Image, error) {
	blob := func(desc v1.Descriptor) (io.ReadCloser, error) {
		if err := checkHash(desc.Digest); err != nil {
			return nil, err
		}
		return s.open("blobs/sha256/" + desc.Digest.Hex)
	}
	var im v1.IndexManifest
	if err := json.Unmarshal(index, &im); err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	desc, err := choose(im.Manifests, choice)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	name := layoutName(desc)
	raw, err := readManifest(desc, blob, 0)
	if err != nil {
		return nil, err
	}
	img, err := newImage(raw, blob)
	if err != nil {
		return nil, err
	}
	img.Reference = name
	return img, nil
}

// Annotations of a layout's descriptors.
const (
	refName       = "org.opencontainers.image.ref.name" // OCI image-spec 1.1, annotations.md
	containerName = "io.containerd.image.name"          // the whole name, as docker saves it
)

func layoutName(desc v1.Descriptor) string {
	if name := desc.Annotations[containerName]; name != "" {
		return name
	}
	return desc.Annotations[refName]
}

// choose finds the one entry of a layout's index that is meant.
func choose(all []v1.Descriptor, choice string) (v1.Descriptor, error) {
	var found []v1.Descriptor
	var names []string
	for _, desc := range all {
		if choice == "" || choice == desc.Digest.String() || choice == desc.Annotations[refName] ||
			strings.HasSuffix(desc.Annotations[containerName], ":"+choice) {
			found = append(found, desc)
		}
		names = append(names, orNone(desc.Annotations[refName])+"@"+desc.Digest.String())
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return v1.Descriptor{}, fmt.Errorf("no image %q, there is: %s", choice, strings.Join(names, ", "))
	default:
		return v1.Descriptor{}, fmt.Errorf("%d images, choose one by :TAG or @DIGEST of: %s", len(found), strings.Join(names, ", "))
	}
}

// maxIndexes is how deep indexes may lead to other indexes.
const maxIndexes = 3

// readManifest reads the image manifest that desc leads to, through indexes to
// the one for linux/amd64.
func readManifest(desc v1.Descriptor, open opener, depth int) ([]byte, error) {
	if !desc.MediaType.IsImage() && !desc.MediaType.IsIndex() {
		return nil, fmt.Errorf("manifest %s: mediaType %q is not an image's", desc.Digest, desc.MediaType)
	}
	if depth > maxIndexes {
		return nil, fmt.Errorf("manifest %s: indexes more than %d deep", desc.Digest, maxIndexes)
	}
	raw, err := readBlob(desc, open)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if desc.MediaType.IsImage() {
		return raw, nil
	}
	var im v1.IndexManifest
	if err := json.Unmarshal(raw, &im); err != nil {
		return nil, fmt.Errorf("index %s: %w", desc.Digest, err)
	}
	var platforms []string
	for _, child := range im.Manifests {
		if p := child.Platform; p != nil && p.OS == "linux" && p.Architecture == "amd64" {
			return readManifest(child, open, depth+1)
		}
		if child.Platform != nil {
			platforms = append(platforms, child.Platform.String())
		}
	}
	return nil, fmt.Errorf("index %s: no image for linux/amd64, there is: %s", desc.Digest, strings.Join(platforms, ", "))
}
