package transcript

import (
	"fmt"
	"strings"

	"github.com/kraudcloud/kattest/measure"
)

// Difference is where two transcripts part.
type Difference struct {
	// Step is the index of the first step that differs, and A and B what stands
	// there; nil where a transcript has ended before.
	Step int           `json:"step"`
	A    *measure.Step `json:"a,omitempty"`
	B    *measure.Step `json:"b,omitempty"`
	// Meaning says what the difference is, in words.
	Meaning string `json:"meaning"`
	// Later are the differences that A and B tell of themselves beside this one.
	Later []string `json:"later,omitempty"`
}

// Diff returns where a and b part, or nil if they account for the same chain.
func Diff(a, b Transcript) *Difference {
	as, bs := alike(a.Steps, b.Steps)
	for i := range max(len(as), len(bs)) {
		d := Difference{Step: i, A: at(as, i), B: at(bs, i)}
		if d.A != nil && d.B != nil && *d.A == *d.B {
			continue
		}
		d.Meaning = meaning(d, a, b)
		for _, told := range told(a, b) {
			if !strings.Contains(d.Meaning, told) {
				d.Later = append(d.Later, told)
			}
		}
		return &d
	}
	return nil
}

func at(steps []measure.Step, i int) *measure.Step {
	if i >= len(steps) {
		return nil
	}
	return &steps[i]
}

// alike returns the steps of both in one form: where of one firmware only
// the digest is known, the other's pages become one such step as well.
func alike(a, b []measure.Step) (as, bs []measure.Step) {
	if opaque(a[0]) != opaque(b[0]) {
		return join(a), join(b)
	}
	return a, b
}

func join(steps []measure.Step) []measure.Step {
	n := 1
	for n < len(steps) && steps[n].What == steps[0].What {
		n++
	}
	first := steps[0]
	first.Pages = 0
	for _, s := range steps[:n] {
		first.Pages += s.Pages
	}
	first.State, first.Contents = steps[n-1].State, measure.Digest{}
	return append([]measure.Step{first}, steps[n:]...)
}

// meaning says in words what differs at the first step that does.
func meaning(d Difference, a, b Transcript) string {
	x, y := d.A, d.B
	switch {
	case x == nil:
		return fmt.Sprintf("A ends here; B goes on with %s", y.What)
	case y == nil:
		return fmt.Sprintf("B ends here; A goes on with %s", x.What)
	case x.Type == measure.PageVMSA && y.Type == measure.PageVMSA:
		return vcpuMeaning(x, y, a, b)
	case x.What != y.What:
		return fmt.Sprintf("A adds %s where B adds %s: they were launched in another order, or with other firmware metadata", x.What, y.What)
	case x.GPA != y.GPA || x.Pages != y.Pages:
		return fmt.Sprintf("%s stands elsewhere, or has another size: A has %d pages at %#x, B %d at %#x", x.What, x.Pages, x.GPA, y.Pages, y.GPA)
	case x.What == measure.SectionKernelHashes.String():
		return hashMeaning(x, y, a, b)
	case x.Type != y.Type:
		return fmt.Sprintf("%s is %v in A and %v in B: another VMM adds it so", x.What, x.Type, y.Type)
	case opaque(*x) && opaque(*y):
		return fmt.Sprintf("the %s images differ; which page is not known, for want of one of them", x.What)
	case x.Contents != y.Contents:
		return fmt.Sprintf("the %s images differ, first in the page at offset %#x", x.What, x.GPA-start(a.Steps, *x))
	default:
		return fmt.Sprintf("%s leads to another digest", x.What)
	}
}

// start is the address of the first page of what s belongs to.
func start(steps []measure.Step, s measure.Step) uint64 {
	for _, t := range steps {
		if t.What == s.What {
			return t.GPA
		}
	}
	return s.GPA
}

func hashMeaning(x, y *measure.Step, a, b Transcript) string {
	switch {
	case x.Type == measure.PageNormal && y.Type != measure.PageNormal:
		return "kernel hashes are on in A and off in B: B says nothing of kernel, initrd and command line"
	case x.Type != measure.PageNormal && y.Type == measure.PageNormal:
		return "kernel hashes are off in A and on in B: A says nothing of kernel, initrd and command line"
	}
	if what := kernelDifferences(a, b); len(what) > 0 {
		return strings.Join(what, "; ")
	}
	return "the tables of kernel hashes differ"
}

func vcpuMeaning(x, y *measure.Step, a, b Transcript) string {
	switch {
	case x.GPA != y.GPA:
		return fmt.Sprintf("vCPUs are measured at %#x in A and at %#x in B: another VMM", x.GPA, y.GPA)
	case x.Contents == y.Contents:
		return fmt.Sprintf("A has %d vCPUs, B %d", a.VCPUs, b.VCPUs)
	}
	if what := stateDifferences(a, b); len(what) > 0 {
		return "the vCPUs start in another state: " + strings.Join(what, "; ")
	}
	return fmt.Sprintf("%s starts in another state, such as at another reset vector", x.What)
}

// told are the differences that the transcripts' own accounts of their launches
// have, each as meaning words it.
func told(a, b Transcript) []string {
	all := append(kernelDifferences(a, b), stateDifferences(a, b)...)
	if a.VCPUs != b.VCPUs {
		all = append(all, fmt.Sprintf("A has %d vCPUs, B %d", a.VCPUs, b.VCPUs))
	}
	return all
}

func kernelDifferences(a, b Transcript) []string {
	if a.KernelHashes == nil || b.KernelHashes == nil {
		return nil
	}
	var what []string
	for _, h := range []struct {
		name string
		a, b measure.Hash
	}{
		{"kernels", a.KernelHashes.Kernel, b.KernelHashes.Kernel},
		{"initrds", a.KernelHashes.Initrd, b.KernelHashes.Initrd},
		{"command lines", a.KernelHashes.Cmdline, b.KernelHashes.Cmdline},
	} {
		if h.a != h.b {
			what = append(what, fmt.Sprintf("the %s differ: SHA-256 %v in A, %v in B", h.name, h.a, h.b))
		}
	}
	return what
}

func stateDifferences(a, b Transcript) []string {
	var what []string
	if a.VMM != b.VMM {
		what = append(what, fmt.Sprintf("VMM %v in A, %v in B", a.VMM, b.VMM))
	}
	if a.CPUSignature != b.CPUSignature {
		what = append(what, fmt.Sprintf("CPU signature %#x in A, %#x in B", a.CPUSignature, b.CPUSignature))
	}
	if a.GuestFeatures != b.GuestFeatures {
		what = append(what, fmt.Sprintf("guest features %#x in A, %#x in B", a.GuestFeatures, b.GuestFeatures))
	}
	return what
}
