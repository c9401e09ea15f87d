package e2e

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/kraudcloud/kattest/internal/e2e/layout"
)

// The guest's kernel finds the files as the image's layer has them: hard links
// as one file, holes as zeros, capabilities, and names before "." in order.
func TestKernelReadsFiles(t *testing.T) {
	r := boot(t, summon(t, output, "files", "/data/blob", "/data/same", "/data/holes", "/data/!first", "/data/capable"))
	r.want(t, 0)
	line := func(name, mode string, links int, data []byte, capability string) string {
		return fmt.Sprintf("%s: %s links %d, %d bytes %x, capability %x\n", name, mode, links, len(data), sha256.Sum256(data), capability)
	}
	want := line("/data/blob", "100644 0:0", 2, layout.Blob(), "") +
		line("/data/same", "100644 0:0", 2, layout.Blob(), "") +
		line("/data/holes", "100644 0:0", 1, []byte(layout.Holes()), "") +
		line("/data/!first", "100644 0:0", 1, []byte("first\n"), "") +
		line("/data/capable", "104755 1000:1001", 1, []byte("c"), layout.Capability)
	if r.stdout != want {
		t.Errorf("the kernel says\n%swant\n%s", r.stdout, want)
	}
}
