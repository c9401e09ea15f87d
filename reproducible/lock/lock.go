// Package lock is the lock file: every input of a build by name, version, size
// and SHA-256, and the requests from which they were resolved. The format is
// documented in docs/spec/lock.md.
//
// It checks the form of a lock file. It does not check that the inputs are to
// be had (package fetch), nor that a distribution signed them: that was done
// when they were resolved (package debian).
package lock

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/kraudcloud/kattest/internal/strictjson"
	"github.com/kraudcloud/kattest/internal/wholefile"
)

// MediaType names this version of the format.
const MediaType = "application/vnd.kattest.lock.v1+json"

// maxFile bounds a lock file, in bytes.
const maxFile = 16 << 20

// Kinds of input.
const (
	KindDeb    = "deb"    // a Debian package, binary or of source code
	KindGo     = "go"     // the zip file of a Go module
	KindSource = "source" // a tarball of a Debian source package
)

// Archives are named by what they hold. Which host serves them is the machine's
// own configuration, never the lock file's.
const (
	ArchiveDebian   = "debian"
	ArchiveSecurity = "debian-security"
	ArchiveGo       = "go"
)

// archives lists the archives that hold inputs of a kind.
var archives = map[string][]string{
	KindDeb:    {ArchiveDebian, ArchiveSecurity},
	KindGo:     {ArchiveGo},
	KindSource: {ArchiveDebian, ArchiveSecurity},
}

// Lock is a lock file.
type Lock struct {
	MediaType string `json:"mediaType"`
	// Sets says what to resolve; sorted by name.
	Sets []Set `json:"sets"`
	// Inputs is what the sets were resolved to; sorted by kind and name, each once.
	Inputs []Input `json:"inputs"`
}

// Set is a request: some packages, for one purpose.
type Set struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Suites says where Debian packages and sources are looked for, as
	// ARCHIVE/SUITE; the newest version in any of them is taken. Empty for Go.
	Suites []string `json:"suites,omitempty"`
	// Closure says whether the packages that these depend on belong to the set.
	Closure bool `json:"closure,omitempty"`
	// Packages are names of Debian packages, of Debian's source packages, or of
	// Go modules as PATH@VERSION.
	Packages []string `json:"packages"`
}

// Input is one file that a build reads.
type Input struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
	Archive string `json:"archive"`
	// Path is the file's path in the archive, relative and unescaped.
	Path string `json:"path"`
	// Sets are the names of the sets that it belongs to, sorted.
	Sets   []string `json:"sets"`
	Size   int64    `json:"size"`   // bytes
	SHA256 string   `json:"sha256"` // lower-case hexadecimal
}

// File returns the file's name without its folders.
func (in Input) File() string { return path.Base(in.Path) }

// String names the input in messages.
func (in Input) String() string { return in.Name + " " + in.Version }

// Load reads and checks the lock file at that path.
func Load(file string) (Lock, error) {
	data, err := read(file)
	if err != nil {
		return Lock{}, err
	}
	l, err := Parse(data)
	if err != nil {
		return Lock{}, fmt.Errorf("%s: %w", file, err)
	}
	return l, nil
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes", file, maxFile)
	}
	return data, nil
}

// Parse reads a lock file in the form that Encode writes, and in no other: one
// content has one digest.
func Parse(data []byte) (Lock, error) {
	l, err := decode(data)
	if err != nil {
		return Lock{}, err
	}
	again, err := l.Encode()
	if err != nil {
		return Lock{}, err
	}
	if !bytes.Equal(data, again) {
		return Lock{}, fmt.Errorf("lock file: offset %d: not in canonical form", firstDifference(data, again))
	}
	return l, nil
}

func decode(data []byte) (Lock, error) {
	var l Lock
	if err := strictjson.Decode(data, &l); err != nil {
		return Lock{}, fmt.Errorf("lock file: %w", err)
	}
	if err := l.check(); err != nil {
		return Lock{}, fmt.Errorf("lock file: %w", err)
	}
	return l, nil
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// LoadRequests reads only what a lock file asks for. Its inputs may be absent
// and its layout is free, so that a file can be begun by hand.
func LoadRequests(file string) ([]Set, error) {
	data, err := read(file)
	if err != nil {
		return nil, err
	}
	var l Lock
	if err := strictjson.Decode(data, &l); err != nil {
		return nil, fmt.Errorf("%s: lock file: %w", file, err)
	}
	l.Inputs = nil
	l.normalize()
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("%s: lock file: %w", file, err)
	}
	return l.Sets, nil
}

// New returns the lock of these sets and what they were resolved to. An input
// that stands in several is listed once, with the sets of all.
func New(sets []Set, inputs []Input) (Lock, error) {
	l := Lock{MediaType: MediaType, Sets: slices.Clone(sets)}
	for _, in := range inputs {
		i := slices.IndexFunc(l.Inputs, func(o Input) bool { return o.SHA256 == in.SHA256 && o.Path == in.Path })
		if i < 0 {
			in.Sets = slices.Clone(in.Sets)
			l.Inputs = append(l.Inputs, in)
			continue
		}
		l.Inputs[i].Sets = append(l.Inputs[i].Sets, in.Sets...)
	}
	l.normalize()
	if err := l.check(); err != nil {
		return Lock{}, fmt.Errorf("lock file: %w", err)
	}
	return l, nil
}

func (l *Lock) normalize() {
	slices.SortFunc(l.Sets, compareSets)
	for i := range l.Sets {
		slices.Sort(l.Sets[i].Packages)
	}
	slices.SortFunc(l.Inputs, compareInputs)
	for i := range l.Inputs {
		slices.Sort(l.Inputs[i].Sets)
		l.Inputs[i].Sets = slices.Compact(l.Inputs[i].Sets)
	}
}

func compareSets(a, b Set) int { return cmp.Compare(a.Name, b.Name) }

func compareInputs(a, b Input) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Path, b.Path))
}

// Set returns the inputs of the set with that name, sorted by name.
func (l Lock) Set(name string) []Input {
	var set []Input
	for _, in := range l.Inputs {
		if slices.Contains(in.Sets, name) {
			set = append(set, in)
		}
	}
	return set
}

// Encode returns the lock file's bytes.
func (l Lock) Encode() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(l); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Digest returns the SHA-256 of the lock file, in lower-case hexadecimal. It is
// empty for a lock that is not valid, such as the zero value.
func (l Lock) Digest() string {
	data, err := l.Encode()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Write puts the lock file at that path, whole or not at all.
func (l Lock) Write(file string) error {
	data, err := l.Encode()
	if err != nil {
		return err
	}
	return wholefile.Write(file, data, 0o644)
}
