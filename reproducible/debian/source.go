package debian

import (
	"context"
	"fmt"
	"strings"

	"github.com/kraudcloud/kattest/reproducible/lock"
)

// sources returns the tarballs of source packages. Their .dsc files are left
// out: the signed lists vouch for the same hashes, and not every mirror that has
// the tarballs has them.
func (r *root) sources(ctx context.Context, set lock.Set) ([]lock.Input, error) {
	var inputs []lock.Input
	for _, name := range set.Packages {
		more, err := r.source(ctx, name)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, more...)
	}
	for i := range inputs {
		inputs[i].Sets = []string{set.Name}
	}
	return inputs, nil
}

func (r *root) source(ctx context.Context, name string) ([]lock.Input, error) {
	out, err := r.apt(ctx, "apt-get", "source", "--only-source", "--download-only", "--print-uris", "--", name)
	if err != nil {
		return nil, err
	}
	files, err := printed(out)
	if err != nil {
		return nil, err
	}
	stanzas, err := r.apt(ctx, "apt-cache", "showsrc", "--only-source", "--", name)
	if err != nil {
		return nil, err
	}
	version, err := versionOf(stanzas, name, files)
	if err != nil {
		return nil, err
	}
	var inputs []lock.Input
	for _, f := range files {
		if !strings.Contains(f.name, ".tar.") || strings.HasSuffix(f.name, ".asc") {
			continue
		}
		in := lock.Input{Name: name, Version: version, Kind: lock.KindSource, Size: f.size, SHA256: f.sha256}
		if in.Archive, in.Path, err = r.locate(f.uri); err != nil {
			return nil, err
		}
		inputs = append(inputs, in)
	}
	if len(inputs) == 0 {
		return nil, fmt.Errorf("the source package %s has no tarballs", name)
	}
	return inputs, nil
}

// versionOf finds the version whose files these are among the stanzas of the
// archives' lists. File names do not say it: the orig tarball's has no revision,
// and no epoch stands in any.
func versionOf(stanzas, name string, files []printedFile) (string, error) {
	for stanza := range strings.SplitSeq(stanzas, "\n\n") {
		version, listed := "", 0
		for line := range strings.Lines(stanza) {
			if v, ok := strings.CutPrefix(line, "Version: "); ok {
				version = strings.TrimSpace(v)
			}
			// A line of Checksums-Sha256: hash, size, name.
			fields := strings.Fields(line)
			for _, f := range files {
				if len(fields) == 3 && fields[0] == f.sha256 && fields[2] == f.name {
					listed++
				}
			}
		}
		if version != "" && len(files) > 0 && listed == len(files) {
			return version, nil
		}
	}
	return "", fmt.Errorf("the archives' lists have no version of %s with these files", name)
}
