package firmware

import (
	"os/exec"
	"strings"
	"testing"
)

// Every patch is one that is applied, and says why before it says what.
func TestPatches(t *testing.T) {
	all, err := Patches()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("none: the script applies *.patch")
	}
	for i, p := range all {
		if i > 0 && all[i-1].Name >= p.Name {
			t.Errorf("%s comes after %s, as the script's shell does not have it", p.Name, all[i-1].Name)
		}
		why, change, ok := strings.Cut(string(p.Data), "\n--- a/")
		if !ok || len(why) < 100 || !strings.Contains(change, "\n+++ b/") {
			t.Errorf("%s: %.80q", p.Name, p.Data)
		}
	}
}

func TestScript(t *testing.T) {
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = strings.NewReader(string(Script))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, step := range []string{Unpack, Compile} {
		if !strings.Contains(string(Script), "\n"+step+")\n") {
			t.Errorf("no step %s", step)
		}
	}
	// No other step begins a build.
	cmd = exec.Command("sh", "-s", "other")
	cmd.Stdin = strings.NewReader(string(Script))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "no such step: other") {
		t.Errorf("%v: %s", err, out)
	}
}

// What the release stands on, whatever else the script says.
func TestPremises(t *testing.T) {
	for _, premise := range []string{"-b RELEASE", "BUILD_SHELL=FALSE", "TPM2_ENABLE=FALSE", "SOURCE_DEBUG_ENABLE=FALSE", "--fuzz=0"} {
		if !strings.Contains(string(Script), premise) {
			t.Errorf("not in the script: %s", premise)
		}
	}
}
