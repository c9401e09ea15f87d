// Package provenance writes how a boot stack was built: the predicate of SLSA
// provenance, version 1. The build's type is documented in docs/spec/provenance.md.
//
// What it says of builder and source is the caller's word; who signs it vouches.
package provenance

import (
	"bytes"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/kraudcloud/kattest/internal/lazyre"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/sbom"
)

// Types. Sources: SLSA specification v1.0, provenance; docs/spec/provenance.md.
const (
	PredicateType = "https://slsa.dev/provenance/v1"
	BuildType     = "https://github.com/kraudcloud/kattest/build/v1"
)

// Build is what the caller knows of a build.
type Build struct {
	// Builder is the URI of what built, which names whom to trust.
	Builder string
	// Repository is the URI of the source, such as git+https://HOST/PATH, and
	// Commit its revision, 40 or 64 hexadecimal digits.
	Repository, Commit string
	// Invocation is the URI of the run; it may be empty.
	Invocation string
}

// The predicate's parts, by SLSA's names.
type (
	predicate struct {
		BuildDefinition buildDefinition `json:"buildDefinition"`
		RunDetails      runDetails      `json:"runDetails"`
	}
	buildDefinition struct {
		BuildType            string             `json:"buildType"`
		ExternalParameters   externalParameters `json:"externalParameters"`
		ResolvedDependencies []resource         `json:"resolvedDependencies"`
	}
	externalParameters struct {
		Source resource `json:"source"`
		Lock   string   `json:"lock"` // path in the source
	}
	runDetails struct {
		Builder  builder   `json:"builder"`
		Metadata *metadata `json:"metadata,omitempty"`
	}
	builder struct {
		ID string `json:"id"`
	}
	metadata struct {
		InvocationID string `json:"invocationId"`
	}
	// resource is an in-toto resource descriptor.
	resource struct {
		Name   string            `json:"name,omitempty"`
		URI    string            `json:"uri,omitempty"`
		Digest map[string]string `json:"digest"`
	}
)

// lockPath is where the lock file stands in the source.
const lockPath = "reproducible/lock.json"

var commitRE = lazyre.New(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// New returns the predicate for a stack that was built from that lock file, JSON.
// agent is the content of the stack's agent, which names its modules.
func New(s stack.Stack, l lock.Lock, agent []byte, b Build) ([]byte, error) {
	if s.Lock != l.Digest() {
		return nil, fmt.Errorf("the stack was built from the lock file %s, and this one is %s", s.Lock, l.Digest())
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(agent))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", stack.Agent, err)
	}
	source := resource{URI: b.Repository, Digest: map[string]string{"gitCommit": b.Commit}}
	p := predicate{
		BuildDefinition: buildDefinition{
			BuildType:          BuildType,
			ExternalParameters: externalParameters{Source: source, Lock: lockPath},
			ResolvedDependencies: []resource{
				source,
				{Name: lockPath, Digest: map[string]string{"sha256": l.Digest()}},
			},
		},
		RunDetails: runDetails{Builder: builder{b.Builder}},
	}
	if b.Invocation != "" {
		p.RunDetails.Metadata = &metadata{b.Invocation}
	}
	for _, in := range l.Inputs {
		p.add(resource{Name: in.File(), URI: sbom.PackageURL(in), Digest: map[string]string{"sha256": in.SHA256}})
	}
	for _, m := range info.Deps {
		r, err := module(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", stack.Agent, err)
		}
		p.add(r)
	}
	return json.Marshal(p)
}

func (p *predicate) add(r resource) {
	p.BuildDefinition.ResolvedDependencies = append(p.BuildDefinition.ResolvedDependencies, r)
}

// module describes a Go module by the digest that go.sum has of it, of which
// in-toto writes the hexadecimal (spec/v1/digest_set.md, dirHash1).
func module(m *debug.Module) (resource, error) {
	text, ok := strings.CutPrefix(m.Sum, "h1:")
	sum, err := base64.StdEncoding.DecodeString(text)
	if m.Replace != nil || !ok || err != nil {
		return resource{}, fmt.Errorf("module %s is replaced, or has no sum", m.Path)
	}
	return resource{Name: m.Path, URI: sbom.ModuleURL(m), Digest: map[string]string{"dirHash1": hex.EncodeToString(sum)}}, nil
}

func (b Build) check() error {
	var errs []error
	for _, u := range []struct {
		name, value string
		optional    bool
	}{{"builder", b.Builder, false}, {"repository", b.Repository, false}, {"invocation", b.Invocation, true}} {
		if parsed, err := url.Parse(u.value); (err != nil || parsed.Scheme == "") && (u.value != "" || !u.optional) {
			errs = append(errs, fmt.Errorf("%s: %.100q is not a URI", u.name, u.value))
		}
	}
	if !commitRE().MatchString(b.Commit) {
		errs = append(errs, fmt.Errorf("commit: %.80q is not 40 or 64 hexadecimal digits", b.Commit))
	}
	return errors.Join(errs...)
}
