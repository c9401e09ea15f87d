package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// pinned is an action by its commit, its version beside it.
var pinned = regexp.MustCompile(`^[a-z0-9/-]+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+$`)

// What runs with the key of the releases: actions by their commits, no expression
// in a shell's text, no permission but to read.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob("../../.github/*/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	actions, err := filepath.Glob("../../.github/actions/*/action.yml")
	if err != nil || len(files) == 0 || len(actions) == 0 {
		t.Fatalf("%d workflows, %d actions, %v", len(files), len(actions), err)
	}
	for _, file := range append(files, actions...) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var root yaml.Node
			if err := yaml.Unmarshal(data, &root); err != nil {
				t.Fatal(err)
			}
			if n := checkSteps(t, &root); n == 0 {
				t.Error("no step runs or uses anything")
			}
		})
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var workflow struct {
			Permissions map[string]string `yaml:"permissions"`
			Jobs        map[string]struct {
				Permissions map[string]string `yaml:"permissions"`
			} `yaml:"jobs"`
		}
		if err := yaml.Unmarshal(data, &workflow); err != nil {
			t.Fatal(err)
		}
		if workflow.Permissions == nil || len(workflow.Permissions) != 0 {
			t.Errorf("%s: permissions: %v, want none", file, workflow.Permissions)
		}
		for name, job := range workflow.Jobs {
			if diff := cmp.Diff(map[string]string{"contents": "read"}, job.Permissions); diff != "" {
				t.Errorf("%s: permissions of %s: %s", file, name, diff)
			}
		}
	}
}

// checkSteps checks every run and uses below a node, and returns how many there are.
func checkSteps(t *testing.T, n *yaml.Node) int {
	t.Helper()
	found := 0
	if n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			key, value := n.Content[i].Value, n.Content[i+1]
			switch {
			case key == "run" && value.Kind == yaml.ScalarNode:
				found++
				if strings.Contains(value.Value, "${{") {
					t.Errorf("line %d: an expression in a shell's text: give it as env", value.Line)
				}
			case key == "uses":
				found++
				if uses := value.Value + " " + value.LineComment; !strings.HasPrefix(uses, "./") && !pinned.MatchString(uses) {
					t.Errorf("line %d: %q is not OWNER/NAME@COMMIT # vX.Y.Z", value.Line, uses)
				}
			}
		}
	}
	for _, child := range n.Content {
		found += checkSteps(t, child)
	}
	return found
}
