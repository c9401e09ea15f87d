package firmwares

import (
	"crypto/sha256"
	"os/exec"
	"testing"

	"github.com/kraudcloud/kattest/launcher"
	"github.com/kraudcloud/kattest/launcher/probe"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/reproducible/lock"
)

// TestProbe boots each image that QEMU would launch with kernel hashes, and
// finds what the table of known images says: AmdSev's compares kernel, initrd and
// command line with the hash table and starts a shim all the same, and the others
// carry the table alone.
func TestProbe(t *testing.T) {
	if _, err := exec.LookPath(launcher.QEMU); err != nil {
		t.Skipf("a probe boots the firmware: %v", err)
	}
	l, images := load(t)
	probed := map[measure.Hash]bool{}
	for _, i := range images {
		if len(i.Kernel) == 0 { // it takes no kernel hashes, or is refused
			continue
		}
		probed[i.SHA256] = true
		t.Run(i.Package+"_"+i.Version+" "+i.Path, func(t *testing.T) {
			known, ok := probe.Known(i.SHA256)
			if !ok {
				t.Fatalf("%v takes kernel hashes and is not in the table of known images", i.SHA256)
			}
			content := unpack(t, get(t, input(t, l, i)))[i.Path]
			if got := measure.Hash(sha256.Sum256(content)); got != i.SHA256 {
				t.Fatalf("SHA-256 %v, want %v", got, i.SHA256)
			}
			r, err := probe.Run(t.Context(), content, probe.Options{Progress: func(b probe.Boot) {
				t.Logf("%s: %v, after %d ms and %d ms of work %q", b.Case, b.Ended, b.Milliseconds, b.CPUMilliseconds, b.Console)
			}})
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != known.Verdict {
				t.Errorf("%v: %s; the table says %v", r.Verdict, r.Reason, known.Verdict)
			}
		})
	}
	for _, k := range probe.KnownImages() {
		if k.SHA256 == probe.BootStack {
			continue // the boot stack's own: internal/e2e has it, and probes it
		}
		if sum, err := measure.ParseHash(k.SHA256); err != nil || !probed[sum] {
			t.Errorf("%v is in the table of known images and is not one of Debian's: %v", k, err)
		}
	}
}

func input(t *testing.T, l lock.Lock, i image) lock.Input {
	t.Helper()
	for _, in := range l.Inputs {
		if in.Name == i.Package && in.Version == i.Version {
			return in
		}
	}
	t.Fatalf("%s %s is not locked", i.Package, i.Version)
	return lock.Input{}
}
