package verifier_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/verifier"
)

const checksFile = "../docs/spec/checks.md"

// docs/spec/checks.md is made from the catalogue. To write it anew:
//
//	UPDATE=1 go test ./verifier -run Catalogue
func TestCatalogue(t *testing.T) {
	var b bytes.Buffer
	fmt.Fprint(&b, `# Checks

Every check of `+"`kattest verify`"+` has a code. Codes are stable: one is never given another meaning, and new ones may come. A result holds those that apply, in this order. This page is made from `+"`verifier/codes.go`"+`.

The class says what a failure means:

| class | verdict | exit code |
|---|---|---|
| format | malformed: neither a report nor evidence as it must be | 2 |
| signature | not-authentic: it cannot be believed | 3 |
| collateral | unavailable: what to judge with could not be had | 4 |
| policy | mismatch: it says what is not accepted | 5 |

Where several fail, format comes first, then signature, policy, collateral.

| code | class | field | bytes of the report | passes if |
|---|---|---|---|---|
`)
	seen := map[verifier.Code]bool{}
	for _, info := range verifier.Checks() {
		if seen[info.Code] || info.Meaning == "" || info.Class < verifier.ClassFormat || info.Class > verifier.ClassPolicy {
			t.Errorf("%+v: stands twice or is not whole", info)
		}
		seen[info.Code] = true
		at := ""
		if info.Bytes.Length > 0 {
			at = fmt.Sprintf("0x%03x–0x%03x", info.Bytes.Offset, info.Bytes.Offset+info.Bytes.Length-1)
		}
		fmt.Fprintf(&b, "| `%s` | %v | %s | %s | %s |\n", info.Code, info.Class, info.Field, at, info.Meaning)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(checksFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(checksFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(got)); diff != "" {
		t.Errorf("%s is not what the catalogue says (-want +got); UPDATE=1 writes it anew:\n%s", checksFile, diff)
	}
}
