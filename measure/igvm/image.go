package igvm

import (
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/measure"
)

// Image is a file as a loader makes a guest of it.
type Image struct {
	file   *File
	loader Loader
	order  []int32        // in which the loader adds the file's directives
	prefix measure.Digest // after them
	zeros  measure.Digest // SHA-384 of a page of zeros
	start  *qemuStart     // of the vCPUs, with QEMU alone
}

// RefusedError says why a loader does not load a file.
type RefusedError struct {
	Loader Loader
	Header *HeaderRef // nil for the file as a whole
	Reason string
}

func (e *RefusedError) Error() string {
	where := "IGVM file"
	if e.Header != nil {
		where += ": " + e.Header.String()
	}
	return fmt.Sprintf("%s: %v refuses it: %s", where, e.Loader, e.Reason)
}

// ErrNoSNP says that a file is not for SEV-SNP.
var ErrNoSNP = errors.New("IGVM file: SEV-SNP is not among its platforms")

// Load returns the guest that a loader makes of the file. The error is ErrNoSNP,
// or every *RefusedError there is, joined.
func (f *File) Load(l Loader) (*Image, error) {
	if l == 0 || l >= loaders {
		return nil, fmt.Errorf("%v: unknown", l)
	}
	if f.snpMask() == 0 {
		return nil, ErrNoSNP
	}
	i := &Image{file: f, loader: l, zeros: sha512Page(new([measure.PageSize]byte))}
	var errs []error
	switch l {
	case QEMU:
		i.order = f.qemuOrder()
		errs = f.qemuRefuses()
		var err error
		if i.start, err = f.qemuStart(); err != nil {
			errs = append(errs, err)
		}
	default:
		i.order = f.toolOrder(l)
		errs = f.toolRefuses(l)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, at := range i.order {
		for _, s := range i.steps(f.directives[at]) {
			i.prefix = s.After(i.prefix)
		}
	}
	return i, nil
}

// MeasuresCPU reports whether the CPU's signature enters the digest of a guest of
// so many vCPUs: whether there are vCPUs of which the file does not have the
// state.
func (i *Image) MeasuresCPU(vcpus int) bool {
	return i.loader == QEMU && len(i.start.contexts) < vcpus
}

// VCPUs returns the number of vCPUs of which the file has the state.
func (i *Image) VCPUs() int {
	if i.loader == QEMU {
		return len(i.start.contexts)
	}
	n := 0
	for _, at := range i.order {
		if kind(i.file.directives[at].kind) == vpContext {
			n++
		}
	}
	return n
}

// GuestFeatures returns SEV_FEATURES of the guest's vCPUs, with QEMU; 0 with the
// tools, which measure each vCPU's as it stands in the file.
func (i *Image) GuestFeatures() uint64 {
	if i.loader == QEMU {
		return i.start.features
	}
	return 0
}

// Changes are the fields of the file's vCPUs that the guest's do not have as they
// stand in the file, in words: what the file's author may not have expected.
func (i *Image) Changes() []string {
	if i.loader == QEMU {
		return i.start.changes
	}
	return nil
}

// Measure returns the launch digest of a guest of so many vCPUs: with QEMU 1 to
// measure.MaxVCPUs, with the tools those that the file has, and no others. The
// CPU may be zero where MeasuresCPU says that it does not count. What cannot be
// measured so is a *measure.ShapeError.
func (i *Image) Measure(vcpus int, cpu measure.CPU) (measure.Digest, error) {
	vmsas, err := i.vmsas(vcpus, cpu)
	if err != nil {
		return measure.Digest{}, err
	}
	digest := i.prefix
	for _, s := range vmsas {
		digest = s.After(digest)
	}
	return digest, nil
}

// Steps returns the account of what Measure returns: what is added, in order. The
// last step's state is the launch digest.
func (i *Image) Steps(vcpus int, cpu measure.CPU) ([]measure.Step, error) {
	vmsas, err := i.vmsas(vcpus, cpu)
	if err != nil {
		return nil, err
	}
	var all []measure.Step
	var digest measure.Digest
	add := func(s measure.Step) {
		digest = s.After(digest)
		s.State = digest
		if n := len(all) - 1; n >= 0 && follows(all[n], s) {
			all[n].Pages += s.Pages
			all[n].State = s.State
			return
		}
		all = append(all, s)
	}
	for _, at := range i.order {
		for _, s := range i.steps(i.file.directives[at]) {
			add(s)
		}
	}
	for _, s := range vmsas {
		add(s)
	}
	return all, nil
}

// follows reports whether b goes on with what a is.
func follows(a, b measure.Step) bool {
	return a.What == b.What && a.Type == b.Type && a.Contents == b.Contents && a.End() == b.GPA && a.Type != measure.PageVMSA
}

// steps are the pages that the loader adds for a directive, without the digests
// after them.
func (i *Image) steps(d directive) []measure.Step {
	switch kind(d.kind) {
	case parameterInsert:
		pages := int(i.file.areas[d.index] / measure.PageSize)
		if i.loader == IGVMMeasure {
			pages = 1
		}
		return []measure.Step{{What: "parameters", Type: measure.PageUnmeasured, GPA: d.gpa, Pages: pages}}
	case vpContext:
		c := i.file.contexts[d.index]
		return []measure.Step{{What: vCPU(int(c.vp)), Type: measure.PageVMSA, GPA: d.gpa, Pages: 1, Contents: sha512Page(c.vmsa)}}
	}
	s := measure.Step{GPA: d.gpa, Pages: int(d.flags.size() / measure.PageSize)}
	if i.loader == OpenVMM { // to it, every page has 4 KiB
		s.Pages = 1
	}
	switch {
	case d.data == dataSecrets:
		s.What, s.Type = "secrets", measure.PageSecrets
	case d.data == dataCPUID || d.data == dataCPUIDXF:
		s.What, s.Type = "CPUID", measure.PageCPUID
	case d.flags&flagUnmeasured != 0:
		s.What, s.Type = "unmeasured data", measure.PageUnmeasured
	default:
		return i.data(s, d)
	}
	return []measure.Step{s}
}

// data are the steps of a page whose contents are measured: what stands in the
// file of it, and zeros.
func (i *Image) data(s measure.Step, d directive) []measure.Step {
	zeros := s
	zeros.What, zeros.Type, zeros.Contents = "zeros", measure.PageNormal, i.zeros
	if d.index == none {
		return []measure.Step{zeros}
	}
	s.What, s.Type, s.Pages, s.Contents = "data", measure.PageNormal, 1, i.file.contents[d.index]
	if zeros.Pages--; zeros.Pages == 0 {
		return []measure.Step{s}
	}
	zeros.GPA += measure.PageSize
	return []measure.Step{s, zeros}
}

// vmsas are the steps of the vCPUs that the loader adds behind everything else.
func (i *Image) vmsas(vcpus int, cpu measure.CPU) ([]measure.Step, error) {
	if i.loader == QEMU {
		return i.start.vmsas(vcpus, cpu)
	}
	if n := i.VCPUs(); n != vcpus {
		return nil, &measure.ShapeError{Field: "vCPUs", Reason: fmt.Sprintf("%d, and %v measures those that the file has, %d", vcpus, i.loader, n)}
	}
	return nil, nil
}

func vCPU(n int) string { return fmt.Sprintf("vCPU %d", n) }
