package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// merged are the folders that a merged /usr replaces by links to its own. The
// links are in no package of Debian bookworm, and in base-files of trixie.
var merged = []string{"bin", "lib", "lib64", "sbin"}

// Walk calls put for every entry of a package's file system, in its order, with
// the file's bytes. Names are clean, relative and slash-separated, and lie below
// usr/ where a merged /usr has them; a hard link's target likewise. The links of
// a merged /usr itself are left out. An entry that is no file, folder or link, or
// whose name leads outside, is an error.
func Walk(ctx context.Context, deb string, put func(*tar.Header, io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("unpacking %s: %w", deb, err)
	}
	err = walkTar(out, put)
	if err != nil {
		cancel() // dpkg-deb may be stuck writing
	}
	waitErr := cmd.Wait()
	if err == nil && waitErr != nil {
		err = waitErr
	}
	if err == nil {
		return nil
	}
	// A package that is no package fails in dpkg-deb first, which says why.
	if complaint := strings.TrimSpace(stderr.String()); complaint != "" {
		err = errors.New(complaint)
	}
	return fmt.Errorf("unpacking %s: %w", deb, err)
}

func walkTar(r io.Reader, put func(*tar.Header, io.Reader) error) error {
	archive := tar.NewReader(r)
	for {
		hdr, err := archive.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r) // the padding behind the end
			return err
		}
		if err != nil {
			return err
		}
		if hdr.Typeflag == tar.TypeSymlink && mergedLink(hdr) {
			continue
		}
		if hdr.Name, err = mergedName(hdr.Name); err != nil {
			return err
		}
		switch hdr.Typeflag {
		case tar.TypeReg, tar.TypeDir, tar.TypeSymlink:
		case tar.TypeLink:
			if hdr.Linkname, err = mergedName(hdr.Linkname); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s: entry of type %q", hdr.Name, hdr.Typeflag)
		}
		if err := put(hdr, archive); err != nil {
			return err
		}
	}
}

// mergedLink says whether an entry is one of the links of a merged /usr.
func mergedLink(hdr *tar.Header) bool {
	name := path.Clean(hdr.Name)
	return slices.Contains(merged, name) && path.Clean(hdr.Linkname) == "usr/"+name
}

func mergedName(name string) (string, error) {
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) || strings.Contains(clean, "\x00") {
		return "", fmt.Errorf("%q leads outside", name)
	}
	first, _, _ := strings.Cut(clean, "/")
	for _, dir := range merged {
		if first == dir {
			return "usr/" + clean, nil
		}
	}
	return clean, nil
}
