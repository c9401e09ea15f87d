package igvm

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/kraudcloud/kattest/measure"
)

// maxReasons bounds the reasons for which a file is refused that are reported.
const maxReasons = 20

// qemuOrder is the order in which QEMU adds directives: the file's, but for two
// things. It gathers neighbouring pages into a region, and adds a region when
// the next page is not part of it, or the file ends; areas of parameters it adds
// at once. Thus an area comes before the region of the pages that stand before
// it. And vCPUs come last, with KVM, see qemuStart.
//
// Source: QEMU backends/igvm.c, qigvm_process_mem_page,
// qigvm_directive_parameter_insert.
func (f *File) qemuOrder() []int32 {
	mask := f.snpMask()
	var order, region []int32
	for at, d := range f.directives {
		if d.mask&mask == 0 {
			continue
		}
		switch kind(d.kind) {
		case parameterInsert:
			order = append(order, int32(at))
		case pageData:
			if n := len(region); n > 0 && !joins(f.directives[region[n-1]], d) {
				order, region = append(order, region...), region[:0]
			}
			region = append(region, int32(at))
		}
	}
	return append(order, region...)
}

// joins reports whether the page b is of the region whose last page is a.
func joins(a, b directive) bool {
	return a.at+1 == b.at && a.gpa+a.flags.size() == b.gpa &&
		a.flags == b.flags && a.data == b.data && a.mask == b.mask && (a.index == none) == (b.index == none)
}

// qemuRefuses reports what keeps QEMU from loading the file, whatever the guest's
// vCPUs and memory.
func (f *File) qemuRefuses() []error {
	var errs []error
	refuse := func(ref HeaderRef, format string, args ...any) {
		errs = append(errs, &RefusedError{Loader: QEMU, Header: &ref, Reason: fmt.Sprintf(format, args...)})
	}
	for _, ref := range f.foreign {
		refuse(ref, "it does not know this type of header, whatever the platform")
	}
	type area struct {
		gpa, size uint64
		ref       HeaderRef
	}
	var areas []area
	for _, at := range f.qemuOrder() {
		d := f.directives[at]
		size := d.flags.size()
		if kind(d.kind) == parameterInsert {
			size = f.areas[d.index]
		}
		areas = append(areas, area{d.gpa, size, d.ref()})
	}
	if len(areas) == 0 {
		errs = append(errs, &RefusedError{Loader: QEMU, Reason: "it puts nothing into an SEV-SNP guest"})
	}
	slices.SortFunc(areas, func(a, b area) int { return cmp.Compare(a.gpa, b.gpa) })
	for i := 1; i < len(areas) && len(errs) < maxReasons; i++ {
		if a, b := areas[i-1], areas[i]; a.gpa+a.size > b.gpa {
			refuse(b.ref, "the page at %#x is given twice, also by %v: KVM adds a page once", b.gpa, a.ref)
		}
	}
	return errs
}

// qemuStart is the state in which the vCPUs start that QEMU makes, with KVM.
type qemuStart struct {
	features uint64                    // SEV_FEATURES of every vCPU
	contexts map[uint16]measure.Digest // of the vCPUs that the file has: SHA-384 of the VMSA
	changes  []string
}

// qemuStart works out what KVM measures of the file's vCPUs. QEMU takes the
// guest's SEV_FEATURES from the first vCPU's context, then has KVM set the
// registers of each; KVM makes the VMSAs of all vCPUs from the registers when the
// launch is finished, in their order, at one address.
//
// Source: QEMU target/i386/sev.c, cgs_set_guest_state, sev_common_kvm_init;
// Linux 6.12, arch/x86/kvm/svm/sev.c, snp_launch_update_vmsa.
func (f *File) qemuStart() (*qemuStart, error) {
	mask := f.snpMask()
	start := &qemuStart{features: measure.SNPActive, contexts: map[uint16]measure.Digest{}}
	for _, c := range f.contexts {
		if c.mask == mask && c.vp == 0 {
			start.features = saveArea(c.vmsa[:]).u64(offsetFeatures)
		}
	}
	for _, d := range f.directives {
		if kind(d.kind) != vpContext || d.mask != mask {
			continue
		}
		c := f.contexts[d.index]
		digest, changes, err := measuredVMSA(d.gpa, c.vmsa, start.features)
		if err != nil {
			ref := d.ref()
			return nil, &RefusedError{Loader: QEMU, Header: &ref, Reason: err.Error()}
		}
		start.contexts[c.vp] = digest
		for _, change := range changes {
			start.changes = append(start.changes, fmt.Sprintf("vCPU %d: %s", c.vp, change))
		}
	}
	return start, nil
}

// vmsas are the steps of the vCPUs. One that the file does not have starts at the
// processor's reset vector, as QEMU resets it: no firmware's reset block is read.
func (q *qemuStart) vmsas(vcpus int, cpu measure.CPU) ([]measure.Step, error) {
	if vcpus < 1 || vcpus > measure.MaxVCPUs {
		return nil, &measure.ShapeError{Field: "vCPUs", Reason: fmt.Sprintf("%d is not between 1 and %d", vcpus, measure.MaxVCPUs)}
	}
	for vp := range q.contexts {
		if int(vp) >= vcpus {
			return nil, &measure.ShapeError{Field: "vCPUs", Reason: fmt.Sprintf("%d, and the file has the state of vCPU %d, counted from 0: QEMU refuses that", vcpus, vp)}
		}
	}
	shape := measure.Shape{VMM: measure.QEMU, VCPUs: vcpus, CPU: cpu, GuestFeatures: q.features}
	reset := measure.Step{What: "vCPUs at reset", Type: measure.PageVMSA, GPA: vmsaGPA, Pages: 1}
	if len(q.contexts) < vcpus {
		if err := shape.Check(); err != nil {
			return nil, fmt.Errorf("vCPUs that the file does not have: %w", err)
		}
		reset.Contents = sha512Page(measure.ResetVMSA(resetVector, shape))
	}
	var steps []measure.Step
	for n := range vcpus {
		s := reset
		if contents, ok := q.contexts[uint16(n)]; ok {
			s.What, s.Contents = vCPU(n), contents
		}
		if last := len(steps) - 1; last >= 0 && steps[last].What == s.What {
			steps[last].Pages++
			continue
		}
		steps = append(steps, s)
	}
	return steps, nil
}
