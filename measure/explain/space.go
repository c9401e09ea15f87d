package explain

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/kraudcloud/kattest/measure"
)

// Bounds of a space, which keep what stands in memory of it below a few
// megabytes.
const (
	MaxSources  = 8
	MaxCmdlines = 32 // beside the sources' own
	maxCPUs     = 1024
)

// Source is a boot stack that may have been launched, or parts of it.
type Source struct {
	Name     string // for people, such as the release's file
	Firmware *measure.Firmware
	// Kernel, Initrd and Cmdline are what its kernel hashes are made of. Without a
	// kernel (a zero hash) it is to be launched with kernel hashes off.
	Kernel, Initrd measure.Hash
	Cmdline        string
	// Expected are the shapes that it was to be launched in. What is zero in one
	// is not held against a launch; none at all is the same as one that is zero.
	Expected []measure.Shape
}

// Space is the launches that are searched: every combination of a source's
// firmware; kernel hashes off, or on with any source's kernel, any source's
// initrd or none, and any command line; a profile; a CPU; a mask of guest
// features; and 1 to VCPUs vCPUs.
type Space struct {
	Sources []Source
	// Cmdlines are further command lines. The sources' and the empty one are
	// always among them.
	Cmdlines []string
	// CPUs beside the sources' expected ones. KnownCPUs has the usual ones.
	CPUs []measure.CPU
	// Features are masks beside the sources' expected ones and the profiles' own.
	// LikelyFeatures and AllFeatures have some.
	Features []uint64
	VCPUs    int // 1 to measure.MaxVCPUs
}

// processors are those that SEV-SNP guests run on and whose signature is no
// model's of QEMU: -cpu host gives it to a guest. Bergamo stands for Siena too.
// Sources: Linux 6.18, arch/x86/kernel/cpu/microcode/amd.c, need_sha_check, whose
// patch levels begin with the signature; fwupd's table of processors by
// signature and fixed microcode.
func processors() []measure.CPU {
	return []measure.CPU{
		{Name: "host (Milan)", Signature: 0xa00f10},
		{Name: "host (Milan-X)", Signature: 0xa00f12},
		{Name: "host (Genoa)", Signature: 0xa10f11},
		{Name: "host (Genoa)", Signature: 0xa10f12},
		{Name: "host (Bergamo)", Signature: 0xaa0f01},
		{Name: "host (Bergamo)", Signature: 0xaa0f02},
		{Name: "host (Turin)", Signature: 0xb00f21},
		{Name: "host (Turin Dense)", Signature: 0xb10f10},
	}
}

// KnownCPUs are QEMU's models, and the processors that SEV-SNP guests run on.
func KnownCPUs() []measure.CPU { return append(measure.CPUs(), processors()...) }

// LikelyFeatures are the masks with SNPActive and at most two other features,
// those with fewer first.
func LikelyFeatures() []uint64 {
	all := AllFeatures()
	i := slices.IndexFunc(all, func(mask uint64) bool { return bits.OnesCount64(mask) > 3 })
	return all[:i]
}

// AllFeatures are all masks of the features that the APM names, with SNPActive:
// 32768, those with fewer bits first.
func AllFeatures() []uint64 {
	const optional = measure.KnownFeatures &^ measure.SNPActive
	var masks []uint64
	for subset := uint64(0); ; subset = (subset - optional) & optional { // the next subset
		masks = append(masks, subset|measure.SNPActive)
		if subset == optional {
			break
		}
	}
	slices.SortStableFunc(masks, func(a, b uint64) int { return bits.OnesCount64(a) - bits.OnesCount64(b) })
	return masks
}

// Check reports everything that keeps the space from being searched, joined.
func (s Space) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if n := len(s.Sources); n == 0 || n > MaxSources {
		bad("%d boot stacks and releases, want 1 to %d", n, MaxSources)
	}
	if n := len(s.Cmdlines); n > MaxCmdlines {
		bad("%d further command lines, more than %d", n, MaxCmdlines)
	}
	if n := len(s.CPUs); n > maxCPUs {
		bad("%d CPUs, more than %d", n, maxCPUs)
	}
	if s.VCPUs < 1 || s.VCPUs > measure.MaxVCPUs {
		bad("vCPUs: %d is not between 1 and %d", s.VCPUs, measure.MaxVCPUs)
	}
	if len(s.cpus()) == 0 {
		bad("no CPUs")
	}
	for _, mask := range s.masks() {
		if mask&measure.SNPActive == 0 || mask&^measure.KnownFeatures != 0 {
			bad("guest features: %#x has SNPActive (bit 0) clear, or unknown bits", mask)
		}
	}
	for i, src := range s.Sources {
		if src.Firmware == nil {
			bad("source %d: no firmware", i)
		}
		for _, e := range src.Expected {
			if e.VCPUs > s.VCPUs {
				bad("source %d: %d vCPUs are expected and up to %d searched", i, e.VCPUs, s.VCPUs)
			}
		}
	}
	for _, c := range s.cmdlines() {
		if i := strings.IndexByte(c, 0); i >= 0 {
			bad("command line: NUL at offset %d", i)
		}
	}
	return errors.Join(errs...)
}

// cmdlines are all command lines, the sources' first.
func (s Space) cmdlines() []string {
	var all []string
	for _, src := range s.Sources {
		all = append(all, src.Cmdline)
	}
	return distinct(append(append(all, s.Cmdlines...), ""))
}

// cpus are all CPUs, one of no name only where its signature has no other.
func (s Space) cpus() []measure.CPU {
	all := slices.Clone(s.CPUs)
	for _, e := range s.expected() {
		all = append(all, e.CPU)
	}
	named := map[uint32]bool{0: true}
	for _, c := range all {
		named[c.Signature] = named[c.Signature] || c.Name != ""
	}
	return distinct(slices.DeleteFunc(all, func(c measure.CPU) bool {
		return c.Signature == 0 || c.Name == "" && named[c.Signature]
	}))
}

// masks are all masks of guest features, the expected ones first.
func (s Space) masks() []uint64 {
	var all []uint64
	for _, e := range s.expected() {
		all = append(all, e.GuestFeatures)
	}
	for _, p := range snpProfiles() {
		all = append(all, p.Describe().GuestFeatures)
	}
	all = append(all, s.Features...)
	return distinct(slices.DeleteFunc(all, func(mask uint64) bool { return mask == 0 }))
}

// expected are the shapes that the source may be in; one that says nothing if none
// is given.
func (src Source) expected() []measure.Shape {
	if len(src.Expected) == 0 {
		return []measure.Shape{{}}
	}
	return src.Expected
}

func (s Space) expected() []measure.Shape {
	var all []measure.Shape
	for _, src := range s.Sources {
		all = append(all, src.Expected...)
	}
	return all
}

func snpProfiles() []measure.Profile {
	return slices.DeleteFunc(measure.Profiles(), func(p measure.Profile) bool {
		return p.Describe().Technology != measure.TechnologySNP
	})
}

// distinct returns the values in their order, each once.
func distinct[T comparable](values []T) []T {
	seen := map[T]bool{}
	var once []T
	for _, v := range values {
		if !seen[v] {
			seen[v] = true
			once = append(once, v)
		}
	}
	return once
}
