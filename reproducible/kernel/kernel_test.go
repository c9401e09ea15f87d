package kernel

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDropped(t *testing.T) {
	fragment := `# a comment
CONFIG_TAKEN=y
CONFIG_STRING="a = b"
# CONFIG_OFF is not set
# CONFIG_OFF_AND_UNKNOWN is not set
CONFIG_GONE=y
CONFIG_SWITCHED_OFF=y
CONFIG_MODULE=y
CONFIG_NUMBER=256
# CONFIG_ON_AGAIN is not set
`
	config := `#
# Automatically generated file; DO NOT EDIT.
#
CONFIG_TAKEN=y
CONFIG_STRING="a = b"
# CONFIG_OFF is not set
# CONFIG_SWITCHED_OFF is not set
CONFIG_MODULE=m
CONFIG_NUMBER=64
CONFIG_ON_AGAIN=y
CONFIG_SOMETHING_ELSE=y
`
	want := []string{
		"CONFIG_GONE is n, wanted y",
		"CONFIG_MODULE is m, wanted y",
		"CONFIG_NUMBER is 64, wanted 256",
		"CONFIG_ON_AGAIN is y, wanted n",
		"CONFIG_SWITCHED_OFF is n, wanted y",
	}
	if diff := cmp.Diff(want, Dropped([]byte(fragment), []byte(config))); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
	if got := Dropped(Fragment, Fragment); got != nil {
		t.Errorf("the fragment against itself: %q", got)
	}
}

// The guest's safety rests on these, whatever else the fragment says.
func TestFragmentPremises(t *testing.T) {
	got := options(Fragment)
	for name, want := range map[string]string{
		"CONFIG_MODULES":                     "n",
		"CONFIG_DEVMEM":                      "n",
		"CONFIG_KEXEC":                       "n",
		"CONFIG_KEXEC_FILE":                  "n",
		"CONFIG_DEBUG_FS":                    "n",
		"CONFIG_BPF_SYSCALL":                 "n",
		"CONFIG_ACPI_TABLE_UPGRADE":          "n",
		"CONFIG_ACPI_MADT_WAKEUP":            "n",
		"CONFIG_ACPI_SPCR_TABLE":             "n",
		"CONFIG_HPET_TIMER":                  "n",
		"CONFIG_PCI_MMCONFIG":                "n",
		"CONFIG_MAGIC_SYSRQ":                 "n",
		"CONFIG_HW_RANDOM":                   "n",
		"CONFIG_SECURITY_LOCKDOWN_LSM":       "y",
		"CONFIG_AMD_MEM_ENCRYPT":             "y",
		"CONFIG_SEV_GUEST":                   "y",
		"CONFIG_TSM_REPORTS":                 "y",
		"CONFIG_X86_MSR":                     "y",
		"CONFIG_DM_VERITY":                   "y",
		"CONFIG_EROFS_FS":                    "y",
		"CONFIG_VIRTIO_CONSOLE":              "y",
		"CONFIG_RD_LZ4":                      "y",
		"CONFIG_PANIC_ON_OOPS":               "y",
		"CONFIG_INIT_ON_ALLOC_DEFAULT_ON":    "y",
		"CONFIG_SECURITY_LOCKDOWN_LSM_EARLY": "y",
	} {
		value, ok := got[name]
		if !ok || value != want {
			t.Errorf("%s is %q, want %q", name, value, want)
		}
	}
}

// An option that stands twice would make the first of them a lie.
func TestFragmentNamesEachOptionOnce(t *testing.T) {
	seen := map[string]bool{}
	for line := range strings.Lines(string(Fragment)) {
		for name := range options([]byte(line)) {
			if seen[name] {
				t.Errorf("%s stands twice", name)
			}
			seen[name] = true
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d options found", len(seen))
	}
}

// A patch says why before it says what, and what it says is a patch.
func TestPatchesHaveReasons(t *testing.T) {
	patches := Patches()
	if len(patches) == 0 {
		t.Fatal("no patches")
	}
	last := ""
	for _, p := range patches {
		reason, change, found := strings.Cut(string(p.Data), "\n--- a/")
		if !found || !strings.Contains(change, "\n@@ -") {
			t.Errorf("%s changes nothing", p.Name)
		}
		if title, rest, _ := strings.Cut(reason, "\n\n"); title == "" || strings.Contains(title, "\n") || len(rest) < 100 {
			t.Errorf("%s has no title or no reason", p.Name)
		}
		if p.Name <= last {
			t.Errorf("%s is applied after %s", p.Name, last)
		}
		last = p.Name
	}
}

// The one that keeps the host's bytecode from private memory.
func TestBytecodePatchIsThere(t *testing.T) {
	for _, p := range Patches() {
		if bytes.Contains(p.Data, []byte("+\t\tif (acpi_os_refuse_memory(\"bytecode\", address,\n")) {
			return
		}
	}
	t.Error("no patch refuses bytecode memory")
}
