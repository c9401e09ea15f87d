// Package sbom writes the bill of materials of a boot stack in CycloneDX: the
// stack's files, and what they were made from, by the lock file and by what the
// agent says of its modules.
//
// It lists what a build reads. It does not look into those inputs: which sources a
// Debian package was itself made from is Debian's to say.
package sbom

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// Version is the version of CycloneDX that is written.
const Version = "1.6"

// New returns the bill of materials of a stack that was built from that lock
// file: JSON, the same bytes for the same stack. agent is the content of the
// stack's agent, which names its modules.
//
// What runs in the guest has the scope "required"; compilers and other tools have
// "excluded".
func New(s stack.Stack, l lock.Lock, agent []byte) ([]byte, error) {
	if s.Lock != l.Digest() {
		return nil, fmt.Errorf("the stack was built from the lock file %s, and this one is %s", s.Lock, l.Digest())
	}
	info, err := buildinfo.Read(bytes.NewReader(agent))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", stack.Agent, err)
	}
	b := builder{
		bom:  document{Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", BOMFormat: "CycloneDX", SpecVersion: Version, Version: 1},
		deps: map[string][]string{},
	}
	if err := b.stack(s); err != nil {
		return nil, err
	}
	for _, in := range l.Inputs {
		b.input(in)
	}
	for _, m := range info.Deps {
		if err := b.module(m); err != nil {
			return nil, err
		}
	}
	b.dependencies()
	// Serial numbers are random elsewhere: here the content makes it, so that it is
	// the same for everyone (RFC 9562, UUID version 8).
	content, err := json.Marshal(b.bom)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(content)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	b.bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(b.bom); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// builder collects components, and what each of the stack's files was made from.
type builder struct {
	bom   document
	files []string
	deps  map[string][]string
}

const stackRef = "boot-stack"

// stack adds the stack and its files.
func (b *builder) stack(s stack.Stack) error {
	main := component{
		BOMRef: stackRef, Type: "firmware", Name: "kattest boot stack", Version: s.Lock,
		Properties: []property{{"kattest:cmdline", s.Cmdline}, {"kattest:lock:sha256", s.Lock}},
	}
	b.bom.Metadata.Component = main
	for _, f := range s.Files {
		b.add(component{
			BOMRef: "file:" + f.Name, Type: "file", Name: f.Name, Description: f.Source,
			Hashes: []hash{{"SHA-256", f.SHA256}}, Scope: required,
		})
		b.files = append(b.files, "file:"+f.Name)
	}
	for _, name := range []string{stack.Firmware, stack.Kernel, stack.Initrd, stack.Agent} {
		if !slices.Contains(b.files, "file:"+name) {
			return fmt.Errorf("the stack has no %s", name)
		}
	}
	b.deps["file:"+stack.Initrd] = []string{"file:" + stack.Agent}
	return nil
}

// madeFrom says which file of the stack has what the inputs of a set hold; inputs
// of other sets are tools.
var madeFrom = map[string]string{
	"firmware":      stack.Firmware,
	"kernel-source": stack.Kernel,
	"go":            stack.Agent, // whose standard library is in it
}

// input adds a locked input.
func (b *builder) input(in lock.Input) {
	c := component{
		BOMRef: in.Archive + "/" + in.Path, Type: "application", Name: in.Name, Version: in.Version,
		PackageURL: PackageURL(in), Scope: excluded,
		Hashes: []hash{{"SHA-256", in.SHA256}},
	}
	for _, set := range in.Sets {
		if file, ok := madeFrom[set]; ok {
			c.Scope = required
			b.deps["file:"+file] = append(b.deps["file:"+file], c.BOMRef)
		}
	}
	b.add(c)
}

// module adds a Go module of the agent.
func (b *builder) module(m *debug.Module) error {
	if m.Replace != nil || m.Sum == "" {
		return fmt.Errorf("%s: module %s is replaced, or has no sum", stack.Agent, m.Path)
	}
	c := component{
		BOMRef: "go/" + m.Path + "@" + m.Version, Type: "library", Name: m.Path, Version: m.Version,
		PackageURL: ModuleURL(m), Scope: required,
		Properties: []property{{"kattest:go.sum", m.Sum}},
	}
	b.deps["file:"+stack.Agent] = append(b.deps["file:"+stack.Agent], c.BOMRef)
	b.add(c)
	return nil
}

func (b *builder) add(c component) { b.bom.Components = append(b.bom.Components, c) }

// dependencies writes what depends on what.
func (b *builder) dependencies() {
	b.bom.Dependencies = []dependency{{stackRef, b.files}}
	for _, file := range b.files {
		on := b.deps[file]
		slices.Sort(on)
		b.bom.Dependencies = append(b.bom.Dependencies, dependency{file, on})
	}
}

// PackageURL names an input (purl specification, types deb and golang).
func PackageURL(in lock.Input) string {
	if in.Kind == lock.KindGo {
		return "pkg:golang/" + escaped(in.Name) + "@" + purlVersion(in.Version)
	}
	// NAME_VERSION_ARCH.deb; source packages have no architecture in their names.
	file := strings.TrimSuffix(path.Base(in.Path), ".deb")
	_, arch, ok := strings.Cut(strings.TrimPrefix(file, in.Name+"_"), "_")
	if !ok || !strings.HasSuffix(in.Path, ".deb") {
		arch = "source"
	}
	return fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", escaped(in.Name), purlVersion(in.Version), arch)
}

// ModuleURL names a Go module.
func ModuleURL(m *debug.Module) string {
	return "pkg:golang/" + escaped(m.Path) + "@" + purlVersion(m.Version)
}

// escaped escapes a path's parts and keeps its slashes.
func escaped(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(url.PathEscape(p), "+", "%2B")
	}
	return strings.Join(parts, "/")
}

// purlVersion escapes a version: of its signs, the specification keeps colons.
func purlVersion(v string) string { return strings.ReplaceAll(url.PathEscape(v), "+", "%2B") }
