package provenance_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	provenancepb "github.com/in-toto/attestation/go/predicates/provenance/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/lock"
	"github.com/kraudcloud/kattest/reproducible/provenance"
)

func TestProvenance(t *testing.T) {
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
	s := stack.Stack{MediaType: stack.MediaType, Lock: l.Digest()}
	good := provenance.Build{
		Builder: "https://ci.example/runner@v1", Repository: "git+https://git.example/kattest", Commit: strings.Repeat("0c", 20),
		Invocation: "https://ci.example/runs/7",
	}
	data, err := provenance.New(s, l, agent, good)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := provenance.New(s, l, agent, good); err != nil || !bytes.Equal(data, again) {
		t.Errorf("another one the second time, %v", err)
	}

	// in-toto's own types of SLSA's schema read it, know every member, and find
	// nothing missing.
	var p provenancepb.Provenance
	if err := protojson.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
	digests := map[string]string{}
	for _, d := range p.BuildDefinition.ResolvedDependencies {
		digests[d.Name] = d.Digest["sha256"] + d.Digest["dirHash1"]
	}
	for _, in := range l.Inputs {
		if digests[in.File()] != in.SHA256 {
			t.Errorf("%s: %q", in.File(), digests[in.File()])
		}
	}
	if len(digests["github.com/vishvananda/netlink"]) != 64 {
		t.Errorf("netlink: %q", digests["github.com/vishvananda/netlink"])
	}
	if id := p.RunDetails.Metadata.InvocationId; id != good.Invocation {
		t.Errorf("invocation %s", id)
	}

	for _, tt := range []struct {
		name   string
		change func(*provenance.Build)
		err    string
	}{
		{"no builder", func(b *provenance.Build) { b.Builder = "" }, "builder: "},
		{"a builder that is no URI", func(b *provenance.Build) { b.Builder = "me" }, "builder: "},
		{"no repository", func(b *provenance.Build) { b.Repository = "" }, "repository: "},
		{"a branch", func(b *provenance.Build) { b.Commit = "main" }, "commit: "},
		{"a run that is no URI", func(b *provenance.Build) { b.Invocation = "7" }, "invocation: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := good
			tt.change(&b)
			if data, err := provenance.New(s, l, agent, b); err == nil || data != nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
	s.Lock = strings.Repeat("0b", 32)
	if _, err := provenance.New(s, l, agent, good); err == nil || !strings.Contains(err.Error(), s.Lock) {
		t.Errorf("error %v", err)
	}
}
