package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
)

// The bill of materials of the stack that the other tests boot: its files, signed,
// and the same bytes each time.
func TestSBOM(t *testing.T) {
	const lock = "../../reproducible/lock.json"
	first := run(t, s.command("kattest", "sbom", "--stack", s.stack, "--lock", lock))
	first.want(t, 0)
	if again := run(t, s.command("kattest", "sbom", "--stack", s.stack, "--lock", lock)); again.stdout != first.stdout {
		t.Error("another one the second time")
	}
	bundle := filepath.Join(t.TempDir(), "sbom.sigstore.json")
	run(t, s.command("kattest", "sbom", "--stack", s.stack, "--lock", lock, "--sign", s.key, "--bundle", bundle)).want(t, 0)
	payload, manifest := open(t, bundle, s.pub), readStack(t)
	var statement struct {
		PredicateType string
		Subject       []struct {
			Name   string
			Digest map[string]string
		}
		Predicate json.RawMessage
	}
	if err := json.Unmarshal(payload, &statement); err != nil {
		t.Fatal(err)
	}
	if statement.PredicateType != release.SBOMType || len(statement.Subject) != len(manifest.Files) {
		t.Errorf("%s about %d files", statement.PredicateType, len(statement.Subject))
	}
	for _, subject := range statement.Subject {
		if f, ok := manifest.File(subject.Name); !ok || f.SHA256 != subject.Digest["sha256"] {
			t.Errorf("subject %s: %v", subject.Name, subject.Digest)
		}
	}
	var stated, written any
	if json.Unmarshal(statement.Predicate, &stated) != nil || json.Unmarshal([]byte(first.stdout), &written) != nil {
		t.Fatal("no JSON")
	}
	if !equalJSON(t, stated, written) {
		t.Error("another bill of materials is signed than is written")
	}

	t.Run("is no release", func(t *testing.T) {
		run(t, s.command("kattest", "measure", "--release", bundle, "--key", s.pub)).want(t, 2, "predicateType")
	})
	t.Run("of an altered stack", func(t *testing.T) {
		dir := alteredStack(t, stack.Initrd, func(_ *testing.T, b []byte) []byte { b[53] ^= 1; return b }, false)
		run(t, s.command("kattest", "sbom", "--stack", dir, "--lock", lock)).want(t, 2, stack.Initrd)
	})
	t.Run("of another lock file", func(t *testing.T) {
		run(t, s.command("kattest", "sbom", "--stack", s.stack, "--lock", "../../examples/mariadb/lock.json")).want(t, 2, "the stack was built from the lock file")
	})
}

// open returns the statement in a bundle that the key signed.
func open(t *testing.T, bundle, pub string) []byte {
	t.Helper()
	pem, err := os.ReadFile(pub)
	if err != nil {
		t.Fatal(err)
	}
	key, err := release.ParsePublicKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	payload, _, err := release.Verify(data, key)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func readStack(t *testing.T) stack.Stack {
	t.Helper()
	manifest, err := stack.Read(s.stack)
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

func equalJSON(t *testing.T, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(x) == string(y)
}
