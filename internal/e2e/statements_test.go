package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/provenance"
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
	predicate := signedPredicate(t, bundle, release.SBOMType)
	var stated, written any
	if json.Unmarshal(predicate, &stated) != nil || json.Unmarshal([]byte(first.stdout), &written) != nil {
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

// How the stack was built, signed.
func TestProvenance(t *testing.T) {
	bundle := filepath.Join(t.TempDir(), "provenance.sigstore.json")
	line := []string{
		"provenance", "--stack", s.stack, "--lock", "../../reproducible/lock.json", "--builder", "https://ci.example/runner",
		"--repository", "git+https://git.example/kattest", "--sign", s.key, "--bundle", bundle,
	}
	run(t, s.command("kattest", line...)).want(t, 2, "commit: ")
	if _, err := os.Stat(bundle); err == nil {
		t.Error("a bundle is written without a commit")
	}
	run(t, s.command("kattest", append(line, "--commit", strings.Repeat("0c", 20))...)).want(t, 0)
	if predicate := signedPredicate(t, bundle, provenance.PredicateType); !bytes.Contains(predicate, []byte(`"gitCommit":"0c0c`)) {
		t.Errorf("no commit in %.200s", predicate)
	}
}

// signedPredicate returns the predicate of a statement about the stack's files
// that the key signed.
func signedPredicate(t *testing.T, bundle, predicateType string) []byte {
	t.Helper()
	pem, err := os.ReadFile(s.pub)
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
	manifest, err := stack.Read(s.stack)
	if err != nil {
		t.Fatal(err)
	}
	if statement.PredicateType != predicateType || len(statement.Subject) != len(manifest.Files) {
		t.Errorf("%s about %d files", statement.PredicateType, len(statement.Subject))
	}
	for _, subject := range statement.Subject {
		if f, ok := manifest.File(subject.Name); !ok || f.SHA256 != subject.Digest["sha256"] {
			t.Errorf("subject %s: %v", subject.Name, subject.Digest)
		}
	}
	return statement.Predicate
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
