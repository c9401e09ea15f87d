package kattest

import (
	"context"
	"fmt"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/verifier"
)

// maxWays bounds the ways of launching for which digests are computed, for each
// release: 512 digests each take a quarter of a millisecond.
const maxWays = 256

// computeLaunches returns a verifier.Policy's Compute: it looks for a report's
// measurement among the launches that the releases do not list, but that differ
// from one which they do in the number of vCPUs alone, or in that the vCPUs have
// the signature of the processor which the report names.
func computeLaunches(releases []signedRelease, vcpus int) func(context.Context, verifier.Report) ([]verifier.Reference, error) {
	return func(ctx context.Context, report verifier.Report) ([]verifier.Reference, error) {
		var found []verifier.Reference
		for _, r := range releases {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			refs, err := r.compute(report, vcpus)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.file, err)
			}
			found = append(found, refs...)
		}
		return found, nil
	}
}

func (r signedRelease) compute(report verifier.Report, vcpus int) ([]verifier.Reference, error) {
	shapes := furtherShapes(r.Table, reportCPU(report), vcpus)
	digests, err := r.Measure(shapes)
	if err != nil {
		return nil, err
	}
	var found []verifier.Reference
	for i, d := range digests {
		if d == report.Measurement {
			found = append(found, r.reference(release.NewEntry(shapes[i], d), "; computed, as the release does not list it"))
		}
	}
	return found, nil
}

// reportCPU is the CPU that vCPUs are with -cpu host on the report's processor.
// Reports before version 3 do not name it: then it is none.
func reportCPU(r verifier.Report) *measure.CPU {
	if r.Version < 3 {
		return nil
	}
	cpu, err := measure.ParseFMS(fmt.Sprintf("%d/%d/%d", r.Family, r.Model, r.Stepping))
	if err != nil || cpu.Signature == 0 { // nothing that CPUID could hold
		return nil
	}
	return &cpu
}

// furtherShapes are the table's ways of launching, and the same with the host's
// CPU, at every number of vCPUs, or at that one where it is not 0.
func furtherShapes(table []release.Entry, host *measure.CPU, vcpus int) []measure.Shape {
	var ways []measure.Shape
	seen := map[measure.Shape]bool{}
	add := func(s measure.Shape) {
		key := s
		key.CPU.Name = "" // the signature alone is measured
		if len(ways) < maxWays && !seen[key] {
			seen[key] = true
			ways = append(ways, s)
		}
	}
	for _, e := range table {
		s := e.Shape()
		s.VCPUs = 1
		add(s)
		if host != nil && s.VMM.MeasuresCPU() {
			s.CPU = *host
			add(s)
		}
	}
	first, last := 1, measure.MaxVCPUs
	if vcpus != 0 {
		first, last = vcpus, vcpus
	}
	shapes := make([]measure.Shape, 0, len(ways)*(last-first+1))
	for _, s := range ways {
		for s.VCPUs = first; s.VCPUs <= last; s.VCPUs++ {
			shapes = append(shapes, s)
		}
	}
	return shapes
}
