// Package release is the published statement about a boot stack: its
// components, its command line, the lock it was built from, and the launch
// digest of each shape that it may be launched in. It is an in-toto statement in
// a sigstore bundle; the format is documented in docs/spec/release.md.
//
// A release is as good as who signed it: the package checks form and a key's
// signature, and that the digests follow from what the release says of its
// components. Who signed without a key is the business of measure/release/keyless.
// The package reads revocations, and applies none: a release that was replaced is
// one that opens.
package release

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kraudcloud/kattest/internal/lazyre"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/stack"
)

// Release says what a boot stack is and how it measures.
type Release struct {
	// Serial grows from each of a publisher's releases to the next, so that an
	// older one can be told; 0 is one that is not numbered. It is below 2^53.
	Serial     uint64      `json:"serial"`
	Components []Component `json:"components"`
	// Cmdline is the kernel command line, without a trailing NUL.
	Cmdline string `json:"cmdline"`
	// Lock is the SHA-256 of the lock file, lower-case hexadecimal.
	Lock   string `json:"lock"`
	Policy Policy `json:"policy"`
	// Firmware is what of OVMF.fd further digests are computed from.
	Firmware     measure.FirmwareState `json:"firmware"`
	KernelHashes Enforcement           `json:"kernelHashes"`
	Table        []Entry               `json:"table"`
}

// Component is a file of the boot stack. Size is in bytes.
type Component struct {
	Name   string       `json:"name"`
	Size   int64        `json:"size"`
	SHA256 measure.Hash `json:"sha256"`
}

// Enforcement says whether the firmware compares kernel, initrd and command line
// with the hashes that were measured. If it does not, the digest says nothing of
// them.
type Enforcement string

// What a publisher may say of its firmware.
const (
	Enforced   Enforcement = "enforced"   // it was found to compare them
	Unverified Enforcement = "unverified" // nobody looked
)

// Policy is what the publisher wants of the guest policy, the 64 bits at 0x08 of
// the report: all of Required set, all of Forbidden clear.
// Source: AMD 56860 (SEV-SNP Firmware ABI), section 4.3, Guest Policy.
type Policy struct {
	Required  uint64 `json:"required"`
	Forbidden uint64 `json:"forbidden"`
}

// Bits of the guest policy. Source: as for Policy.
const (
	PolicyReserved17 = 1 << 17 // one in every guest
	PolicyMigration  = 1 << 18 // a migration agent may take the guest along
	PolicyDebug      = 1 << 19 // the host may read and write the guest's memory
)

// DefaultPolicy forbids what would let the host into the guest.
func DefaultPolicy() Policy {
	return Policy{Required: PolicyReserved17, Forbidden: PolicyMigration | PolicyDebug}
}

// Entry is one launch and its digest. The digest depends on the CPU's signature
// alone; CPU is QEMU's name of the model, empty where only the signature is known.
type Entry struct {
	VMM           measure.Profile `json:"vmm"`
	VCPUs         int             `json:"vcpus"`
	CPU           string          `json:"cpu,omitempty"`
	CPUSignature  uint32          `json:"cpuSignature"`
	GuestFeatures uint64          `json:"guestFeatures"`
	Measurement   measure.Digest  `json:"measurement"`
}

// NewEntry is the entry for a shape that was measured.
func NewEntry(s measure.Shape, d measure.Digest) Entry {
	return Entry{s.VMM, s.VCPUs, s.CPU.Name, s.CPU.Signature, s.GuestFeatures, d}
}

// Shape returns the shape that was measured.
func (e Entry) Shape() measure.Shape {
	return measure.Shape{
		VMM: e.VMM, VCPUs: e.VCPUs, GuestFeatures: e.GuestFeatures,
		CPU: measure.CPU{Name: e.CPU, Signature: e.CPUSignature},
	}
}

// Find returns the entries with that launch digest: more than one where several
// CPU models have the same signature.
func (r Release) Find(d measure.Digest) []Entry {
	var found []Entry
	for _, e := range r.Table {
		if e.Measurement == d {
			found = append(found, e)
		}
	}
	return found
}

// New returns the release of a boot stack with firmware fw, measured in each of
// the shapes, without a serial. The stack's files must have been checked against its manifest.
func New(s stack.Stack, fw *measure.Firmware, shapes []measure.Shape, enforced Enforcement) (Release, error) {
	r := Release{
		Cmdline: s.Cmdline, Lock: s.Lock, Policy: DefaultPolicy(),
		Firmware: fw.State(), KernelHashes: enforced,
	}
	var err error
	if r.Components, err = Components(s); err != nil {
		return Release{}, fmt.Errorf("release: %w", err)
	}
	digests, err := r.Measure(shapes)
	if err != nil {
		return Release{}, err
	}
	for i, d := range digests {
		r.Table = append(r.Table, NewEntry(shapes[i], d))
	}
	return r, nil
}

// Components are the stack's files.
func Components(s stack.Stack) ([]Component, error) {
	var all []Component
	for _, f := range s.Files {
		sum, err := measure.ParseHash(f.SHA256)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		all = append(all, Component{Name: f.Name, Size: f.Size, SHA256: sum})
	}
	return all, nil
}

// Launch returns what the release's digests are computed from, without its files.
func (r Release) Launch() (*measure.Firmware, measure.KernelHashes, error) {
	fw, err := r.Firmware.Firmware()
	if err != nil {
		return nil, measure.KernelHashes{}, fmt.Errorf("release: %w", err)
	}
	files := map[string]Component{}
	for _, c := range r.Components {
		files[c.Name] = c
	}
	for _, name := range []string{stack.Firmware, stack.Kernel, stack.Initrd} {
		if _, ok := files[name]; !ok {
			return nil, measure.KernelHashes{}, fmt.Errorf("release: components: no %s", name)
		}
	}
	if size := files[stack.Firmware].Size; size != int64(r.Firmware.Size) {
		return nil, measure.KernelHashes{}, fmt.Errorf("release: firmware.size: %d bytes, the component %s has %d", r.Firmware.Size, stack.Firmware, size)
	}
	hashes, err := measure.NewKernelHashes(files[stack.Kernel].SHA256, files[stack.Initrd].SHA256, r.Cmdline)
	if err != nil {
		return nil, measure.KernelHashes{}, fmt.Errorf("release: %w", err)
	}
	return fw, hashes, nil
}

// Measure returns the launch digests of the release's boot stack in further
// shapes, the same as from its files.
func (r Release) Measure(shapes []measure.Shape) ([]measure.Digest, error) {
	fw, hashes, err := r.Launch()
	if err != nil {
		return nil, err
	}
	digests, err := measure.Matrix(fw, &hashes, shapes)
	if err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return digests, nil
}

// MaxSerial is the largest serial. RFC 8785: a larger number is not exact in every
// JSON reader.
const MaxSerial = 1<<53 - 1

// Bounds of a release. The subjects are bounded by sigstore's verifier at 1024.
const (
	maxComponents = 256
	maxTable      = 8192
	maxText       = 64 << 10 // bytes of a name or of the command line
)

var hashRE = lazyre.New(`^[0-9a-f]{64}$`)

// Check reports everything that is wrong with the release's form, joined.
func (r Release) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if r.Serial > MaxSerial {
		bad("serial: %d, more than %d", r.Serial, uint64(MaxSerial))
	}
	if n := len(r.Components); n == 0 || n > maxComponents {
		bad("components: %d, want 1 to %d", n, maxComponents)
	}
	seen := map[string]bool{}
	for i, c := range r.Components {
		if err := c.check(); err != nil {
			bad("components[%d].%w", i, err)
		}
		if seen[c.Name] {
			bad("components[%d].name: %q stands twice", i, c.Name)
		}
		seen[c.Name] = true
	}
	if strings.ContainsAny(r.Cmdline, "\x00\n") || !isText(r.Cmdline) {
		bad("cmdline: holds a NUL, a line feed or invalid UTF-8, or more than %d bytes", maxText)
	}
	if !hashRE().MatchString(r.Lock) {
		bad("lock: %.80q is not a SHA-256", r.Lock)
	}
	if both := r.Policy.Required & r.Policy.Forbidden; both != 0 {
		bad("policy: bits %#x are required and forbidden", both)
	}
	// RFC 8785: a larger number is not exact in every JSON reader.
	if r.Policy.Required|r.Policy.Forbidden >= 1<<53 {
		bad("policy: bits beyond 52")
	}
	if r.KernelHashes != Enforced && r.KernelHashes != Unverified {
		bad("kernelHashes: %.80q is neither %q nor %q", r.KernelHashes, Enforced, Unverified)
	}
	errs = append(errs, checkTable(r.Table)...)
	if len(errs) == 0 {
		errs = append(errs, r.checkDigests())
	}
	return errors.Join(errs...)
}

// checkDigests computes the table again.
func (r Release) checkDigests() error {
	shapes := make([]measure.Shape, len(r.Table))
	for i, e := range r.Table {
		shapes[i] = e.Shape()
	}
	digests, err := r.Measure(shapes)
	if err != nil {
		return err
	}
	for i, e := range r.Table {
		if e.Measurement != digests[i] {
			return fmt.Errorf("table[%d].measurement: %v, the release's own firmware and components give %v", i, e.Measurement, digests[i])
		}
	}
	return nil
}

func (c Component) check() error {
	switch {
	case c.Name == "" || c.Name == "." || c.Name == ".." || c.Name != filepath.Base(c.Name) || !isText(c.Name):
		return fmt.Errorf("name: %.80q is not a plain file name", c.Name)
	case c.Size < 0 || c.Size >= 1<<53:
		return fmt.Errorf("size: %d", c.Size)
	}
	return nil
}

func isText(s string) bool { return len(s) <= maxText && utf8.ValidString(s) }

// checkTable checks the form of each entry.
func checkTable(table []Entry) []error {
	var errs []error
	if n := len(table); n == 0 || n > maxTable {
		errs = append(errs, fmt.Errorf("table: %d entries, want 1 to %d", n, maxTable))
	}
	seen := map[measure.Shape]bool{}
	for i, e := range table {
		if err := e.check(); err != nil {
			errs = append(errs, fmt.Errorf("table[%d]: %w", i, err))
		}
		if seen[e.Shape()] {
			errs = append(errs, fmt.Errorf("table[%d]: stands twice", i))
		}
		seen[e.Shape()] = true
	}
	return errs
}

func (e Entry) check() error {
	if err := e.Shape().Check(); err != nil {
		return err
	}
	if e.CPU != "" {
		cpu, err := measure.ParseCPU(e.CPU)
		if err != nil {
			return fmt.Errorf("cpu: %w", err)
		}
		if cpu.Signature != e.CPUSignature {
			return fmt.Errorf("cpuSignature: %#x, that of %s is %#x", e.CPUSignature, e.CPU, cpu.Signature)
		}
	}
	return nil
}

// sorted returns the components in the order of the statement's subjects: by name.
func (r Release) sorted() []Component {
	return slices.SortedFunc(slices.Values(r.Components), func(a, b Component) int { return cmp.Compare(a.Name, b.Name) })
}
