package guest

import (
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// modules are all that the agent is made of beside Go's standard library, and
// why each is worth its place in the trusted base.
var modules = map[string]string{
	"github.com/kraudcloud/kattest":        "this module",
	"github.com/containerd/go-dmverity":    "the device-mapper ioctls that set up dm-verity",
	"github.com/google/go-configfs-tsm":    "reports from the kernel, with its generation handling",
	"github.com/docker/go-units":           "moby's types import it",
	"github.com/moby/docker-image-spec":    "moby's types import it",
	"github.com/moby/moby/api":             "docker's API in its own types",
	"github.com/moby/term":                 "docker's keys to detach from a terminal",
	"github.com/opencontainers/go-digest":  "moby's types import it",
	"github.com/opencontainers/image-spec": "moby's types import it",
	"github.com/moby/sys/user":             "users of an image, by docker's own rules",
	"github.com/vishvananda/netlink":       "addresses and routes without a shell",
	"github.com/vishvananda/netns":         "netlink imports it",
	"go.uber.org/multierr":                 "go-configfs-tsm imports it",
	"golang.org/x/sys":                     "system calls that the standard library has not",
}

// TestModules: whatever enters the agent enters every guest, and its
// measurement. A new module needs a line above.
func TestModules(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "../cmd/cradle-init").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, module := range strings.Fields(string(out)) {
		found[module] = true
	}
	want := slices.Sorted(maps.Keys(modules))
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(found))); diff != "" {
		t.Errorf("modules in the agent (-want +got):\n%s", diff)
	}
}

// banned must not come back by way of a module that is allowed.
var banned = map[string]string{
	"github.com/kraudcloud/kattest/verifier": "the judge shares no code with the judged but the formats",
	"github.com/kraudcloud/kattest/launcher": "the host's side is hostile to the guest",
	"github.com/spf13/cobra":                 "the agent has no command line",
	"github.com/sigstore":                    "the agent checks no signatures",
	"github.com/google/go-containerregistry": "the guest pulls no images",
	"runtime/cgo":                            "the agent has no C library",
	"plugin":                                 "the agent is what was measured, and loads nothing",
	"net/http/pprof":                         "no one looks into the agent",
}

func TestBannedPackages(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "../cmd/cradle-init")
	list.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is built
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if !slices.Contains(packages, "github.com/kraudcloud/kattest/guest/pod") {
		t.Fatal("the list of packages is wrong")
	}
	for _, pkg := range packages {
		for ban, reason := range banned {
			if pkg == ban || strings.HasPrefix(pkg, ban+"/") {
				t.Errorf("the agent imports %s: %s", pkg, reason)
			}
		}
	}
}
