package sbom_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/sbom"
)

// inputs are a stack of the checkout's lock file, and its agent, compiled as this
// machine does it.
func inputs(t *testing.T) (stack.Stack, lock.Lock, []byte) {
	t.Helper()
	l, err := lock.Load("../lock.json")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), stack.Agent)
	build := exec.Command("go", "build", "-o", program, "../../cmd/cradle-init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	agent, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	s := stack.Stack{MediaType: stack.MediaType, Lock: l.Digest(), Cmdline: "quiet"}
	for _, name := range []string{stack.Firmware, stack.Agent, stack.Initrd, stack.Kernel} {
		s.Files = append(s.Files, stack.File{Name: name, Size: 1, SHA256: strings.Repeat("0a", 32), Source: "of " + name})
	}
	return s, l, agent
}

func TestSBOM(t *testing.T) {
	s, l, agent := inputs(t)
	data, err := sbom.New(s, l, agent)
	if err != nil {
		t.Fatal(err)
	}
	again, err := sbom.New(s, l, agent)
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("another one the second time, %v", err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(data), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	one := func(name string, is func(cdx.Component) bool) cdx.Component {
		i := slices.IndexFunc(*bom.Components, is)
		if i < 0 {
			t.Fatalf("no component %s", name)
		}
		return (*bom.Components)[i]
	}
	find := func(name string) cdx.Component {
		return one(name, func(c cdx.Component) bool { return c.Name == name })
	}
	for name, want := range map[string]struct {
		purl  string
		scope cdx.Scope
	}{
		"linux-source-6.12":              {"pkg:deb/debian/linux-source-6.12@", cdx.ScopeRequired},
		"edk2":                           {"pkg:deb/debian/edk2@", cdx.ScopeRequired},
		"gcc":                            {"pkg:deb/debian/gcc@4:", cdx.ScopeExcluded},
		"golang.org/toolchain":           {"pkg:golang/golang.org/toolchain@v0.0.1-go", cdx.ScopeRequired},
		"github.com/vishvananda/netlink": {"pkg:golang/github.com/vishvananda/netlink@v", cdx.ScopeRequired},
	} {
		if c := find(name); !strings.HasPrefix(c.PackageURL, want.purl) || c.Scope != want.scope {
			t.Errorf("%s: %s, %s", name, c.PackageURL, c.Scope)
		}
	}
	for _, in := range l.Inputs {
		c := one(in.Path, func(c cdx.Component) bool { return c.BOMRef == in.Archive+"/"+in.Path })
		if c.Hashes == nil || (*c.Hashes)[0].Value != in.SHA256 {
			t.Errorf("%s: hashes %v", in.Name, c.Hashes)
		}
	}
	validate(t, data)

	t.Run("another lock file", func(t *testing.T) {
		s := s
		s.Lock = strings.Repeat("0b", 32)
		if _, err := sbom.New(s, l, agent); err == nil || !strings.Contains(err.Error(), s.Lock) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no program", func(t *testing.T) {
		if _, err := sbom.New(s, l, []byte("#!/bin/sh")); err == nil || !strings.Contains(err.Error(), stack.Agent) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a file missing", func(t *testing.T) {
		s := s
		s.Files = s.Files[1:]
		if _, err := sbom.New(s, l, agent); err == nil || !strings.Contains(err.Error(), "no "+stack.Firmware) {
			t.Errorf("error %v", err)
		}
	})
}

// validate holds a bill of materials against CycloneDX's own schema, which the
// library's module holds.
func validate(t *testing.T, data []byte) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	for url, file := range map[string]string{
		"http://cyclonedx.org/schema/bom-1.6.schema.json":  "bom-1.6.schema.json",
		"http://cyclonedx.org/schema/spdx.schema.json":     "spdx.schema.json",
		"http://cyclonedx.org/schema/jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		doc, err := jsonschema.UnmarshalJSON(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource(url, doc); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := compiler.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Errorf("CycloneDX's schema: %v", err)
	}
	bad := doc.(map[string]any)
	bad["components"].([]any)[0].(map[string]any)["type"] = "no type"
	if schema.Validate(bad) == nil {
		t.Error("the schema accepts a component of no type")
	}
}
