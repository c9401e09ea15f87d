// Package mirror says where this machine gets things from: Debian's archives
// from its apt configuration, Go modules from its Go configuration. No host is
// named by this project.
//
// It trusts nothing that a mirror serves: package fetch checks every file by
// hash, and package debian lets apt check the signatures.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/internal/lazyre"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// Keyring holds the keys of Debian's archives, as the package
// debian-archive-keyring installs it.
const Keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Debian returns the base URIs that this machine's apt configuration has for an
// archive, in its order. Suites of the main archive that the machine does not
// itself use, such as sid, are served from the same bases.
func Debian(ctx context.Context, archive string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "shell",
		"LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d").Output()
	if err != nil {
		return nil, fmt.Errorf("reading the apt configuration: %w", err)
	}
	var list, parts string
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, "'")
		switch name {
		case "LIST":
			list = value
		case "PARTS":
			parts = value
		}
	}
	return fromFiles(list, parts, archive)
}

// fromFiles reads apt's list of sources and the folder beside it, in the two
// formats of sources.list(5).
func fromFiles(list, parts, archive string) ([]string, error) {
	files := []string{list}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, err := filepath.Glob(filepath.Join(parts, pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	var bases []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the apt sources: %w", err)
		}
		parse := parseOneLine
		if filepath.Ext(file) == ".sources" {
			parse = parseDeb822
		}
		for _, s := range parse(string(data)) {
			if s.serves(archive) {
				bases = append(bases, expand(s.uri)...)
			}
		}
	}
	if len(bases) == 0 {
		return nil, fmt.Errorf("this machine's apt sources name no mirror of the archive %q", archive)
	}
	return unique(bases), nil
}

// source is one URI and suite of apt's configuration.
type source struct{ uri, suite, signedBy string }

var (
	mainSuiteRE     = lazyre.New(`^(bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)(-updates|-backports|-proposed-updates)?$`)
	securitySuiteRE = lazyre.New(`^(bookworm|trixie|forky|stable|oldstable|testing)-security$`)
)

// serves tells Debian's own archives from those of others who use the same
// names of suites: theirs are signed by other keys.
func (s source) serves(archive string) bool {
	if s.signedBy != "" && !strings.HasPrefix(filepath.Base(s.signedBy), "debian-archive-") {
		return false
	}
	switch archive {
	case lock.ArchiveDebian:
		return mainSuiteRE().MatchString(s.suite)
	case lock.ArchiveSecurity:
		return securitySuiteRE().MatchString(s.suite)
	}
	return false
}

// parseOneLine reads lines of the form
//
//	deb [option=value …] URI SUITE COMPONENT…
func parseOneLine(text string) []source {
	var all []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind != "deb" {
			continue
		}
		var s source
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, after, closed := strings.Cut(rest[1:], "]")
			if !closed {
				continue
			}
			for option := range strings.FieldsSeq(options) {
				if value, ok := strings.CutPrefix(option, "signed-by="); ok {
					s.signedBy = value
				}
			}
			rest = after
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 || !slices.Contains(fields[2:], "main") {
			continue
		}
		s.uri, s.suite = fields[0], fields[1]
		all = append(all, s)
	}
	return all
}

// parseDeb822 reads stanzas of fields, continued by lines that begin with a space.
func parseDeb822(text string) []source {
	var all []source
	fields, last := map[string]string{}, ""
	flush := func() {
		all = append(all, fromStanza(fields)...)
		fields, last = map[string]string{}, ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case line == "":
			flush()
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += "\n" + strings.TrimSpace(line)
		default:
			name, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(name)
			fields[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return all
}

func fromStanza(fields map[string]string) []source {
	has := func(name, word string) bool { return slices.Contains(strings.Fields(fields[name]), word) }
	if strings.EqualFold(fields["enabled"], "no") || !has("types", "deb") || !has("components", "main") {
		return nil
	}
	var all []source
	for uri := range strings.FieldsSeq(fields["uris"]) {
		for suite := range strings.FieldsSeq(fields["suites"]) {
			all = append(all, source{uri, suite, fields["signed-by"]})
		}
	}
	return all
}

// expand resolves a list of mirrors in a file, as Debian's cloud images have
// it, and leaves out what cannot serve a single file.
func expand(uri string) []string {
	if file, ok := strings.CutPrefix(uri, "mirror+file:"); ok {
		data, err := os.ReadFile(strings.TrimPrefix(file, "//"))
		if err != nil {
			return nil
		}
		var all []string
		for line := range strings.Lines(string(data)) {
			if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(fields[0], "#") {
				all = append(all, expand(fields[0])...)
			}
		}
		return all
	}
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" || u.Scheme == "cdrom" || strings.HasPrefix(u.Scheme, "mirror") {
		return nil
	}
	return []string{strings.TrimRight(uri, "/")}
}

// Go returns the module proxies of this machine's Go configuration.
func Go(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOPROXY").Output()
	if err != nil {
		return nil, fmt.Errorf("reading the Go configuration: %w", err)
	}
	return proxies(strings.TrimSpace(string(out)))
}

func proxies(list string) ([]string, error) {
	var all []string
	for _, proxy := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '|' }) {
		if proxy == "off" {
			break
		}
		if proxy != "direct" {
			all = append(all, strings.TrimRight(proxy, "/"))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("GOPROXY=%s names no module proxy", list)
	}
	return unique(all), nil
}

func unique(all []string) []string {
	var once []string
	for _, s := range all {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}
