package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/guest/pod"
	"github.com/kraudcloud/kattest/internal/e2e/layout"
	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/vm"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/stack"
	"github.com/kraudcloud/kattest/reproducible/initrd"
)

// Each of these tests is the twin of a guest that boots and verifies: one lie,
// and the place at which it must be refused, with a reason that names it.

// alterations change one thing about a boot stack that still boots by itself.
var alterations = []struct {
	name, file string
	alter      func(t *testing.T, data []byte) []byte // nil: the command line gets one more word
	firmware   bool                                   // whether the firmware compares it with the hash table
}{
	{"firmware", stack.Firmware, flipUnused, false},
	{"kernel", stack.Kernel, func(_ *testing.T, b []byte) []byte { b[0x10] ^= 1; return b }, true}, // e_lfarlc of the DOS header, which nothing reads
	{"initrd", stack.Initrd, laterInitrd, true},
	{"command line", "", nil, true},
}

// flipUnused flips a bit in the free space of the firmware's variable store.
func flipUnused(t *testing.T, b []byte) []byte {
	t.Helper()
	i := bytes.Index(b, bytes.Repeat([]byte{0xff}, 4096))
	if i < 0 {
		t.Fatal("the firmware has no free space")
	}
	b[i+2048] ^= 1
	return b
}

// laterInitrd changes the last digit of the first entry's c_mtime.
func laterInitrd(t *testing.T, b []byte) []byte {
	t.Helper()
	archive, err := initrd.Decompress(b)
	if err != nil {
		t.Fatal(err)
	}
	archive[0x35] ^= 1
	if b, err = initrd.Compress(archive); err != nil {
		t.Fatal(err)
	}
	return b
}

// alteredStack is a copy of the boot stack with one alteration. Its manifest is
// the old one, or one that fits.
func alteredStack(t *testing.T, file string, alter func(*testing.T, []byte) []byte, fits bool) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.stack)); err != nil {
		t.Fatal(err)
	}
	manifest, err := stack.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if alter == nil {
		manifest.Cmdline += " debug"
	} else {
		path := filepath.Join(dir, file)
		rewrite(t, path, func(b []byte) []byte { return alter(t, b) })
		for i, f := range manifest.Files {
			if f.Name == file {
				if manifest.Files[i], err = stack.Describe(dir, file, f.Source); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if fits {
		data, err := manifest.Encode()
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, filepath.Join(dir, stack.Manifest), func([]byte) []byte { return data })
	}
	return dir
}

func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil { // it may be read-only
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// restack points the guest in dir at another boot stack.
func restack(t *testing.T, dir, stackDir string) {
	t.Helper()
	links := filepath.Join(dir, vm.StackDir)
	entries, err := os.ReadDir(links)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(links, e.Name())
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(stackDir, e.Name()), path); err != nil {
			t.Fatal(err)
		}
	}
}

// What does not fit its manifest, the launcher refuses.
func TestAlteredStackIsNotLaunched(t *testing.T) {
	dir := summon(t, nil, "exit", "0")
	for _, a := range alterations {
		if a.alter == nil {
			continue // the manifest is where the command line stands
		}
		t.Run(a.name, func(t *testing.T) {
			restack(t, dir, alteredStack(t, a.file, a.alter, false))
			boot(t, dir).want(t, 2, a.file, "the manifest says")
		})
	}
}

// A host that boots other bytes than it says the hash table holds is refused by
// the firmware.
func TestFirmwareRefusesAlteredStack(t *testing.T) {
	truth := hashStack(t, s.stack)
	dir := summon(t, nil, "exit", "0")
	for _, a := range alterations {
		if !a.firmware {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			restack(t, dir, alteredStack(t, a.file, a.alter, true))
			if err := lie(t, dir, launcher.Claims{Hashes: &truth}); !errors.Is(err, launcher.ErrFirmwareRefused) {
				t.Errorf("error %v, want %v", err, launcher.ErrFirmwareRefused)
			}
		})
	}
}

func hashStack(t *testing.T, dir string) measure.KernelHashes {
	t.Helper()
	manifest, err := stack.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := os.Open(filepath.Join(dir, stack.Kernel))
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	initrd, err := os.Open(filepath.Join(dir, stack.Initrd))
	if err != nil {
		t.Fatal(err)
	}
	defer initrd.Close()
	hashes, err := measure.HashKernel(kernel, initrd, manifest.Cmdline)
	if err != nil {
		t.Fatal(err)
	}
	return hashes
}

// A host whose hash table fits what it boots gets a guest that runs, and whose
// measurement is not the release's.
func TestVerifierRefusesAlteredStack(t *testing.T) {
	dir := summon(t, nil, "serve", ":8080")
	for _, a := range alterations {
		t.Run(a.name, func(t *testing.T) {
			restack(t, dir, alteredStack(t, a.file, a.alter, true))
			g := start(t, dir)
			r, _ := g.attest(t, dir+"/spec.json")
			r.want(t, 5, "measurement", "not one of the release's")
		})
	}
}

// Another number of vCPUs than the release lists gives another measurement, which
// is computed from the release; one that is demanded is held to.
func TestVerifierKnowsOtherVCPUs(t *testing.T) {
	dir := summon(t, []string{"--vcpus", "2"}, "serve", ":8080")
	g := start(t, dir)
	r, _ := g.attest(t, dir+"/spec.json")
	r.want(t, 0, "2 vCPUs", "computed, as the release does not list it")
	r, _ = g.attest(t, dir+"/spec.json", "--vcpus", "1")
	r.want(t, 5, "launched with 2 vCPUs", "launch with -smp 1")
}

// reSpec alters the spec in dir, and returns a copy of the one before.
func reSpec(t *testing.T, dir string, change func(*pod.Spec)) (before string) {
	t.Helper()
	path := filepath.Join(dir, vm.SpecFile)
	before = filepath.Join(t.TempDir(), vm.SpecFile)
	rewrite(t, path, func(data []byte) []byte {
		if err := os.WriteFile(before, data, 0o600); err != nil {
			t.Fatal(err)
		}
		spec, err := pod.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		change(&spec)
		changed, err := spec.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		return changed
	})
	return before
}

var specChanges = []struct {
	name   string
	change func(*pod.Spec)
}{
	{"argument", func(s *pod.Spec) { s.Process.Args = append(s.Process.Args, "more") }},
	{"environment", func(s *pod.Spec) { s.Process.Env = append(s.Process.Env, "MORE=1") }},
}

// A host that launches another spec with that spec's HOST_DATA gets a guest
// that runs, and is not the one that the verifier wants.
func TestVerifierRefusesOtherSpec(t *testing.T) {
	for _, tt := range specChanges {
		t.Run(tt.name, func(t *testing.T) {
			dir := summon(t, nil, "serve", ":8080")
			before := reSpec(t, dir, tt.change)
			g := start(t, dir)
			r, _ := g.attest(t, before)
			r.want(t, 5, "host-data", "another launch spec")
		})
	}
}

// A host that keeps the HOST_DATA and hands over another spec is refused by the agent.
func TestAgentRefusesOtherSpec(t *testing.T) {
	for _, tt := range specChanges {
		t.Run(tt.name, func(t *testing.T) {
			dir := summon(t, nil, "exit", "0")
			before, err := os.ReadFile(reSpec(t, dir, tt.change))
			if err != nil {
				t.Fatal(err)
			}
			wanted := pod.Digest(before)
			wantRefusal(t, lie(t, dir, launcher.Claims{HostData: &wanted}), "HOST_DATA")
		})
	}
}

func wantRefusal(t *testing.T, err error, reason string) {
	t.Helper()
	refused, ok := errors.AsType[*launcher.RefusedError](err)
	if !ok || !strings.Contains(refused.Reason, reason) {
		t.Errorf("error %v, want the guest's refusal with %q", err, reason)
	}
}

func TestAgentRefusesUnknownMember(t *testing.T) {
	dir := summon(t, nil, "exit", "0")
	data, err := os.ReadFile(filepath.Join(dir, vm.SpecFile))
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(data, &members); err != nil {
		t.Fatal(err)
	}
	members["privileged"] = true
	changed, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, lie(t, dir, launcher.Claims{Spec: changed}), `unknown member "privileged"`)
}

// A flipped bit of a file is found when the file is read, one of the file
// system's or the tree's at the mount.
func TestAlteredImageIsRefused(t *testing.T) {
	t.Run("unaltered", func(t *testing.T) {
		boot(t, summon(t, output, "read", "/data/blob")).want(t, 0, "65536 bytes")
	})
	t.Run("file", func(t *testing.T) {
		dir := summon(t, output, "read", "/data/blob")
		flipRoot(t, dir, func(root []byte, _ pod.Verity) int { return bytes.Index(root, layout.Blob()[:4096]) + 100 })
		boot(t, dir).want(t, 1, "input/output error", "dm-verity")
	})
	for _, tt := range []struct {
		name string
		at   func([]byte, pod.Verity) int
	}{
		{"superblock", func([]byte, pod.Verity) int { return 1024 + 100 }},
		{"hash tree", func(_ []byte, v pod.Verity) int { return int(v.DataBlocks)*vm.BlockSize + 5 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := summon(t, nil, "exit", "0")
			flipRoot(t, dir, tt.at)
			boot(t, dir).want(t, 5, "the guest refused", "dm-verity")
		})
	}
}

func flipRoot(t *testing.T, dir string, at func([]byte, pod.Verity) int) {
	t.Helper()
	v, err := vm.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, v.Root(), func(root []byte) []byte {
		root[at(root, v.Spec.Image.Verity)] ^= 1
		return root
	})
}

// What is wrong with an answer, or with what it is judged by.
func TestVerifierRefusesAnswers(t *testing.T) {
	dir := summon(t, nil, "serve", ":8080")
	g := start(t, dir)
	spec := dir + "/spec.json"
	first := nonce(t)
	r, evidence := g.attest(t, spec, "--nonce", first)
	r.want(t, 0)
	verify := func(args ...string) result {
		return run(t, s.command("kattest", append([]string{"verify", evidence}, args...)...))
	}
	whole := append(s.references(spec), "--nonce", first)
	t.Run("the answer itself", func(t *testing.T) { verify(whole...).want(t, 0, "SIMULATED") })
	t.Run("replayed", func(t *testing.T) {
		verify(append(s.references(spec), "--nonce", nonce(t))...).want(t, 5, "nonce", "replayed")
	})
	t.Run("not trusted to be simulated", func(t *testing.T) {
		verify("--release", s.release, "--key", s.pub, "--spec", spec, "--nonce", first).want(t, 3, "SIMULATED", "--trust-simulated")
	})
	t.Run("release of another key", func(t *testing.T) {
		args := append(whole[:0:0], whole...)
		args[3] = s.other
		verify(args...).want(t, 3, "release", "another key")
	})
	t.Run("altered evidence", func(t *testing.T) {
		for _, name := range []string{"publicKey", "events", "nonce"} {
			var members map[string]any
			data, err := os.ReadFile(evidence)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &members); err != nil {
				t.Fatal(err)
			}
			switch name {
			case "publicKey":
				members[name] = "AAAA" + members[name].(string)[4:]
			case "events":
				members[name] = []any{}
			case "nonce":
				members[name] = nonce(t)
			}
			data, err = json.Marshal(members)
			if err != nil {
				t.Fatal(err)
			}
			altered := filepath.Join(t.TempDir(), "evidence.json")
			if err := os.WriteFile(altered, data, 0o600); err != nil {
				t.Fatal(err)
			}
			args := append([]string{"verify", altered}, whole...)
			run(t, s.command("kattest", args...)).want(t, 5)
		}
	})
}
