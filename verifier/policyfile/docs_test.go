package policyfile_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/verifier/policyfile"
)

// The table of fields in docs/spec/policy.md is made from the code. UPDATE=1
// writes it.
func TestDocs(t *testing.T) {
	const name, begin, end = "../../docs/spec/policy.md", "<!-- fields -->\n", "<!-- /fields -->"
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), begin)
	table, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q", name, begin+end)
	}
	var want strings.Builder
	want.WriteString("| field | values | default | meaning | checks |\n|---|---|---|---|---|\n")
	for _, f := range policyfile.Fields() {
		var codes []string
		for _, code := range f.Checks {
			codes = append(codes, "`"+string(code)+"`")
		}
		value := f.Default
		if value != "" {
			value = "`" + strings.ReplaceAll(value, "; ", "`; `") + "`"
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s | %s |\n", f.Path, f.Values, value, f.Meaning, strings.Join(codes, ", "))
	}
	if table == want.String() {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatalf("%s is not what the code says: UPDATE=1 go test ./verifier/policyfile", name)
	}
	if err := os.WriteFile(name, []byte(head+begin+want.String()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
