// Package arch holds the direction of imports: docs/architecture.md draws it,
// this test keeps it. The agent's list of third-party modules is in guest/.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/kraudcloud/kattest"

// rules name, for a package and all below it, what must not be reachable from
// it, through whatever imports.
var rules = []struct{ pkg, banned, reason string }{
	{"measure", module, "the digest must be computable by whoever reads one package"},
	{"measure", ".", "the standard library alone: a digest that everyone trusts is one that everyone can read"},
	{"measure/explain", "github.com/sigstore", "advice on digests: the standard library, and x/sys to know the processor"},
	{"measure/explain", module + "/verifier", "it explains digests, and judges none"},
	{"measure/explain", module + "/measure/release", "its sources arrive checked"},
	{"measure/stack", ".", "the manifest is read wherever a stack is"},
	{"measure/igvm", ".", "a digest, as measure's"},
	{"measure/idblock", ".", "launcher and verifier read what the firmware reads"},
	{"measure/corim", "github.com/sigstore", "CBOR and COSE"},
	{"measure/corim", module + "/verifier", "it writes what is demanded, and judges nothing"},
	{"measure/corim", module + "/measure/release", "it is given digests and demands, whoever published them"},
	{"measure/release", "github.com/sigstore/sigstore-go", "a release that a key signed needs little: keyless ones are measure/release/keyless's"},
	{"measure/release/keyless", module + "/verifier", "it checks signatures, and judges no evidence"},
	{"measure/release/tlog", module + "/verifier", "it checks proofs, and judges no evidence"},
	{"internal/cli/kattest", "github.com/transparency-dev/tessera", "who checks a proof keeps no log: kattest-log is a program of its own"},
	{"internal/cli/kattest", "github.com/compose-spec/compose-go", "compose files are cradle-snp's"},
	{"launcher", "github.com/compose-spec/compose-go", "it runs one guest; which ones belong together is the command's to know"},
	{"internal/cli/cradle/compose", module + "/launcher", "it reads a file, and runs nothing"},
	{"internal/cli/kattest", "github.com/sigstore/sigstore-go", "the verifying path stays light: kattest-keyless is a program of its own"},
	{"guest/pod", ".", "a leaf: read by guest and verifier alike"},
	{"guest/evidence", ".", "a leaf: read by guest and verifier alike"},
	{"guest/port", ".", "a leaf: read by guest and launcher alike"},
	{"internal/strictjson", ".", "every format's parser stands on it"},
	{"guest", module + "/verifier", "the judge shares no code with the judged but the formats"},
	{"guest", module + "/launcher", "the host's side is hostile to the guest"},
	{"guest", module + "/measure", "the agent cannot judge its own measurement"},
	{"guest", "github.com/sigstore", "the agent's trusted base"},
	{"guest", "github.com/spf13/cobra", "the agent has no command line"},
	{"guest", "github.com/google/go-containerregistry", "the guest pulls no images"},
	{"verifier", module + "/guest", "but for the leaves, see exempt: the judge shares no code with the judged"},
	{"verifier", module + "/launcher", "simulation must not reach the verifying path"},
	{"verifier", module + "/reproducible", "verifying builds nothing"},
	{"verifier", "github.com/sigstore", "reference values arrive checked; the verifying path stays light"},
	{"verifier", "github.com/vbauerster/mpb", "the verifying path stays light"},
	{"verifier", "github.com/fxamacker/cbor", "a CoRIM is written for others, and judged with by none of ours"},
	{"guest", "github.com/fxamacker/cbor", "the agent's trusted base"},
	{"verifier/policyfile", module + "/measure/release", "releases are opened by who reads the file"},
	{"verifier", "google.golang.org/grpc", "what is judged is given, or asked for over HTTP alone"},
	{"verifier/vtpm", "github.com/google/go-eventlog", "its tests' peer; it stands on protocol buffers and panics on unknown events"},
	{"verifier/vtpm", "github.com/google/go-sev-guest", "it reads what a TPM says, and judges no report"},
	{"launcher", module + "/verifier", "the launcher runs VMs and judges nothing"},
	{"launcher", module + "/reproducible", "the launcher runs what it is given"},
	{"launcher/image/erofs", module, "a format, and nothing of what is done with it"},
	{"launcher/image/erofs", ".", "the standard library alone"},
	{"launcher/doctor", module + "/guest", "it looks at the host, and knows no guest"},
	{"launcher/doctor", module + "/launcher", "the launcher asks it"},
	{"launcher/probe", module + "/verifier", "a probe judges a firmware, not evidence"},
	{"launcher/probe", module + "/reproducible", "a probe boots what it is given"},
	{"reproducible", module + "/guest", "the build compiles the agent, it does not link it"},
	{"reproducible", module + "/launcher", "the build runs no VM"},
	{"reproducible", module + "/verifier", "the build judges nothing"},
}

// exempt may be imported by everything of ours.
var exempt = map[string]bool{
	module + "/guest/pod":           true,
	module + "/guest/evidence":      true,
	module + "/guest/port":          true,
	module + "/guest/secrets":       true,
	module + "/internal/strictjson": true,
	module + "/internal/lazyre":     true,
	module + "/internal/wholefile":  true,
}

type listed struct {
	ImportPath string
	Standard   bool
}

func TestImports(t *testing.T) {
	for _, rule := range rules {
		t.Run(rule.pkg+" without "+rule.banned, func(t *testing.T) {
			path := module + "/" + rule.pkg
			for _, dep := range deps(t, path) {
				if dep.Standard || dep.ImportPath == path || exempt[dep.ImportPath] {
					continue
				}
				// "." bans every module but ours.
				third := rule.banned == "." && !within(dep.ImportPath, module)
				if third || within(dep.ImportPath, rule.banned) {
					t.Errorf("%s reaches %s: %s", rule.pkg, dep.ImportPath, rule.reason)
				}
			}
		})
	}
}

func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}

func deps(t *testing.T, pkg string) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard", pkg).Output()
	if err != nil {
		t.Fatalf("listing what %s imports: %v", pkg, err)
	}
	var all []listed
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var one listed
		if err := dec.Decode(&one); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	if len(all) < 2 {
		t.Fatalf("%s imports nothing at all: the list is wrong", pkg)
	}
	return all
}
