// Package debian resolves Debian packages to files with hashes, and unpacks
// them.
//
// Resolving lets apt check the archives' signatures and work out what depends
// on what, in a root of its own: the machine's lists, its dpkg status and its
// installed packages are neither read nor changed. Unpacking runs no maintainer
// scripts; it does not check the packages' hashes, which is for package fetch.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/mirror"
)

// Resolve returns the packages of a set at the newest version in its suites,
// with what they depend on if the set says so; recommended packages are not
// among them. Of a source package it returns the tarballs. What apt has to say
// goes to log, which may be nil.
func Resolve(ctx context.Context, set lock.Set, log io.Writer) ([]lock.Input, error) {
	if set.Kind != lock.KindDeb && set.Kind != lock.KindSource {
		return nil, fmt.Errorf("set %s: kind %q is not of Debian", set.Name, set.Kind)
	}
	r, err := newRoot(ctx, set, log)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", set.Name, err)
	}
	defer os.RemoveAll(r.dir)
	inputs, err := r.resolve(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", set.Name, err)
	}
	return inputs, nil
}

func (r *root) resolve(ctx context.Context, set lock.Set) ([]lock.Input, error) {
	if _, err := r.apt(ctx, "apt-get", "update", "--error-on=any"); err != nil {
		return nil, fmt.Errorf("reading the archives' lists: %w", err)
	}
	if set.Kind == lock.KindSource {
		return r.sources(ctx, set)
	}
	command := []string{"download"}
	if set.Closure {
		command = []string{"install", "--yes"}
	}
	out, err := r.apt(ctx, "apt-get", append(append(command, "--print-uris", "--"), set.Packages...)...)
	if err != nil {
		return nil, err
	}
	return r.parse(out, set.Name)
}

// root is a folder with all the state of one run of apt.
type root struct {
	dir   string
	bases map[string]string // archive to base URI
	log   io.Writer
}

func newRoot(ctx context.Context, set lock.Set, log io.Writer) (*root, error) {
	r := &root{bases: map[string]string{}, log: log}
	var sources strings.Builder
	line, list := "deb", "Packages"
	if set.Kind == lock.KindSource {
		line, list = "deb-src", "Sources"
	}
	for _, s := range set.Suites {
		archive, suite, _ := strings.Cut(s, "/")
		if r.bases[archive] == "" {
			bases, err := mirror.Debian(ctx, archive)
			if err != nil {
				return nil, err
			}
			r.bases[archive] = bases[0]
		}
		fmt.Fprintf(&sources, "%s [signed-by=%s arch=amd64 target=%s] %s %s main\n", line, mirror.Keyring, list, r.bases[archive], suite)
	}
	dir, err := os.MkdirTemp("", "kattest-apt-")
	if err != nil {
		return nil, err
	}
	r.dir = dir
	if err := r.populate(sources.String()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, nil
}

// aptConfig is read after the machine's own configuration, of which proxies,
// credentials and transports stay in force. Hooks and choices of versions do not.
const aptConfig = `#clear APT::Update;
#clear APT::Default-Release;
#clear APT::Architectures;
#clear DPkg;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Acquire::ForceHash "SHA256";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::Languages "none";
Dir::State "%[1]s/state";
Dir::State::lists "%[1]s/state/lists";
Dir::State::status "%[1]s/state/status";
Dir::Cache "%[1]s/cache";
Dir::Log "%[1]s/log";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
`

func (r *root) populate(sources string) error {
	// apt downloads as a user of its own, who must get here.
	errs := []error{os.Chmod(r.dir, 0o755)}
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial", "log"} {
		errs = append(errs, os.MkdirAll(filepath.Join(r.dir, dir), 0o755))
	}
	for name, text := range map[string]string{
		"sources.list": sources,
		"apt.conf":     fmt.Sprintf(aptConfig, r.dir),
		"state/status": "", // nothing is installed
	} {
		errs = append(errs, os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644))
	}
	return errors.Join(errs...)
}

// apt runs apt-get or apt-cache.
func (r *root) apt(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append([]string{"-q", "-c", filepath.Join(r.dir, "apt.conf")}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Dir = r.dir
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if args[0] == "update" && r.log != nil {
		cmd.Stdout = r.log
	}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, args[0], err, strings.Join(strings.FieldsFunc(complaints.String(), isLineFeed), "; "))
	}
	return out.String(), nil
}

func isLineFeed(r rune) bool { return r == '\n' }

// parse reads what apt-get prints with --print-uris: lines of the form
//
//	'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:HASH
//
// among others. Size and hash come from the signed lists.
func (r *root) parse(out, set string) ([]lock.Input, error) {
	files, err := printed(out)
	if err != nil {
		return nil, err
	}
	var inputs []lock.Input
	for _, f := range files {
		in, err := f.binary()
		if err != nil {
			return nil, fmt.Errorf("apt-get printed %q: %w", f.name, err)
		}
		if in.Archive, in.Path, err = r.locate(f.uri); err != nil {
			return nil, err
		}
		in.Sets = []string{set}
		inputs = append(inputs, in)
	}
	if len(inputs) == 0 {
		return nil, errors.New("apt-get named no packages")
	}
	return inputs, nil
}

// printedFile is a file of an archive, as apt-get prints it.
type printedFile struct {
	uri, name, sha256 string
	size              int64
}

func printed(out string) ([]printedFile, error) {
	var files []printedFile
	for line := range strings.Lines(out) {
		rest, ok := strings.CutPrefix(line, "'")
		if !ok {
			continue
		}
		uri, rest, _ := strings.Cut(rest, "' ")
		fields := strings.Fields(rest)
		if len(fields) != 3 {
			return nil, fmt.Errorf("apt-get printed %q", line)
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("apt-get printed %q: %w", line, err)
		}
		sum, ok := strings.CutPrefix(fields[2], "SHA256:")
		if !ok {
			return nil, fmt.Errorf("apt-get printed %q: the archive's list has no SHA-256 for it", line)
		}
		files = append(files, printedFile{uri, fields[0], sum, size})
	}
	return files, nil
}

// binary reads a binary package's name and version.
func (f printedFile) binary() (lock.Input, error) {
	parts := strings.Split(strings.TrimSuffix(f.name, ".deb"), "_")
	if len(parts) != 3 {
		return lock.Input{}, errors.New("the file name is not of the form NAME_VERSION_ARCHITECTURE.deb")
	}
	version, err := url.PathUnescape(parts[1]) // an epoch's colon is escaped
	if err != nil {
		return lock.Input{}, err
	}
	return lock.Input{Name: parts[0], Version: version, Kind: lock.KindDeb, Size: f.size, SHA256: f.sha256}, nil
}

// locate tells a file's archive and its path there. One archive's base may stand
// below another's: the longest is the right one.
func (r *root) locate(uri string) (archive, path string, err error) {
	longest := ""
	for name, base := range r.bases {
		if strings.HasPrefix(uri, base+"/") && len(base) > len(longest) {
			archive, longest = name, base
		}
	}
	if longest == "" {
		return "", "", fmt.Errorf("%s is in none of the archives", uri)
	}
	path, err = url.PathUnescape(uri[len(longest)+1:])
	return archive, path, err
}
