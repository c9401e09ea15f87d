package lock

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/internal/lazyre"
)

var (
	sha256RE = lazyre.New(`^[0-9a-f]{64}$`)
	setRE    = lazyre.New(`^[a-z0-9][a-z0-9-]*$`)
	suiteRE  = lazyre.New(`^[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*$`)
	// Debian Policy 4.6.2, section 5.6.1: no name begins with a dash, so that
	// none is taken for an option.
	debRE = lazyre.New(`^[a-z0-9][a-z0-9+.-]+$`)
	goRE  = lazyre.New(`^[a-z0-9][a-zA-Z0-9._~/-]*@v[a-zA-Z0-9.+-]+$`)
)

func (l Lock) check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if l.MediaType != MediaType {
		fail("mediaType: %q, want %q", l.MediaType, MediaType)
	}
	if !slices.IsSortedFunc(l.Sets, compareSets) {
		fail("sets: not sorted by name")
	}
	if !slices.IsSortedFunc(l.Inputs, compareInputs) {
		fail("inputs: not sorted by kind, name and path")
	}
	kinds := map[string]string{}
	for i, s := range l.Sets {
		if _, twice := kinds[s.Name]; twice {
			fail("sets[%d].name: %q stands twice", i, s.Name)
		}
		kinds[s.Name] = s.Kind
		if err := s.check(); err != nil {
			fail("sets[%d].%w", i, err)
		}
	}
	for i, in := range l.Inputs {
		if err := in.check(kinds); err != nil {
			fail("inputs[%d].%w", i, err)
		}
		if i > 0 && compareInputs(l.Inputs[i-1], in) == 0 {
			fail("inputs[%d].path: %q stands twice", i, in.Path)
		}
	}
	return errors.Join(errs...)
}

func (s Set) check() error {
	if !setRE().MatchString(s.Name) {
		return fmt.Errorf("name: %q", s.Name)
	}
	packages := debRE()
	switch s.Kind {
	case KindDeb:
		if len(s.Suites) == 0 {
			return errors.New("suites: none named")
		}
	case KindSource:
		if s.Closure {
			return errors.New("closure: what a source needs to be built is a set of its own")
		}
		if len(s.Suites) == 0 {
			return errors.New("suites: none named")
		}
	case KindGo:
		packages = goRE()
		if s.Closure || len(s.Suites) > 0 {
			return errors.New("kind: a set of Go modules has neither suites nor a closure")
		}
	default:
		return fmt.Errorf("kind: %q is not known", s.Kind)
	}
	for i, suite := range s.Suites {
		archive, _, _ := strings.Cut(suite, "/")
		if !suiteRE().MatchString(suite) || !slices.Contains(archives[s.Kind], archive) {
			return fmt.Errorf("suites[%d]: %q is not of the form ARCHIVE/SUITE with an archive that is known", i, suite)
		}
	}
	if len(s.Packages) == 0 {
		return errors.New("packages: none named")
	}
	if !slices.IsSorted(s.Packages) {
		return errors.New("packages: not sorted")
	}
	for i, p := range s.Packages {
		if !packages.MatchString(p) {
			return fmt.Errorf("packages[%d]: %q", i, p)
		}
	}
	return nil
}

// check judges an input against the kinds of the sets.
func (in Input) check(kinds map[string]string) error {
	switch {
	case in.Name == "" || strings.ContainsFunc(in.Name, isControl):
		return fmt.Errorf("name: %q", in.Name)
	case in.Version == "" || strings.ContainsFunc(in.Version, isControl):
		return fmt.Errorf("version: %q", in.Version)
	case archives[in.Kind] == nil:
		return fmt.Errorf("kind: %q is not known", in.Kind)
	case !slices.Contains(archives[in.Kind], in.Archive):
		return fmt.Errorf("archive: %q holds no input of kind %s", in.Archive, in.Kind)
	case !filepath.IsLocal(in.Path) || path.Clean(in.Path) != in.Path || in.Path == "." || strings.ContainsFunc(in.Path, isControl):
		return fmt.Errorf("path: %q is not a plain relative path", in.Path)
	case in.Size <= 0:
		return fmt.Errorf("size: %d", in.Size)
	case !sha256RE().MatchString(in.SHA256):
		return fmt.Errorf("sha256: %q is not a SHA-256", in.SHA256)
	case len(in.Sets) == 0 || !slices.IsSorted(in.Sets):
		return errors.New("sets: empty or not sorted")
	}
	for _, name := range in.Sets {
		if kinds[name] != in.Kind {
			return fmt.Errorf("sets: %q is no set of kind %s", name, in.Kind)
		}
	}
	return nil
}

func isControl(r rune) bool { return r <= ' ' || r == 0x7f }
