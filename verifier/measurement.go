package verifier

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// checkMeasurement looks the measurement up in the references, and where none
// matches in those that can be computed. One that is known for another number of
// vCPUs than the policy's is told apart from one that is not known.
func (v *verification) checkMeasurement(ctx context.Context) error {
	p, m := v.policy, v.in.Report.Measurement
	if p.WithoutMeasurement {
		v.skip(CodeMeasurement, m.String(), "--without-measurement: any boot stack would do")
		return nil
	}
	check := Check{Code: CodeMeasurement, Outcome: Fail, Expected: expectedMeasurement(p), Found: m.String()}
	if len(p.References) == 0 && p.Compute == nil {
		check.Expected, check.Reason = notGiven, "nothing says which boot stack to expect"
		check.Hint = "--release BUNDLE --key PUB, --measurement HEX, or --without-measurement"
		v.add(check)
		return nil
	}
	matched, others := v.match(p.References)
	if matched == nil && p.Compute != nil {
		computed, err := p.Compute(ctx, v.in.Report)
		if err != nil {
			return fmt.Errorf("computing reference values: %w", err)
		}
		var more []string
		matched, more = v.match(computed)
		others = append(others, more...)
	}
	switch {
	case matched != nil:
		v.reference = *matched
		check.Outcome, check.Expected, check.Reason = Pass, m.String(), matched.Label
	case len(others) > 0:
		check.Reason = fmt.Sprintf("a known launch with another number of vCPUs than the %d demanded: %s", p.VCPUs, strings.Join(others, "; "))
	default:
		check.Reason = unknownLaunch(p.References)
		check.Hint = "'kattest measure' tells which digest a launch has"
	}
	v.add(check)
	return nil
}

// match returns the reference with the report's measurement and the policy's
// number of vCPUs, or the labels of those with another number.
func (v *verification) match(refs []Reference) (matched *Reference, others []string) {
	for i := range refs {
		ref := &refs[i]
		if ref.Measurement != v.in.Report.Measurement {
			continue
		}
		if v.policy.VCPUs == 0 || ref.VCPUs == v.policy.VCPUs {
			return ref, nil
		}
		others = append(others, ref.Label)
	}
	return nil, others
}

func expectedMeasurement(p *Policy) string {
	var digests []string
	for _, ref := range p.References {
		if p.VCPUs == 0 || ref.VCPUs == p.VCPUs {
			digests = append(digests, ref.Measurement.String())
		}
	}
	switch len(digests) {
	case 0:
		if len(p.References) == 0 {
			return "a launch of a release that holds"
		}
		return fmt.Sprintf("a launch with %d vCPUs, of which none is known", p.VCPUs)
	case 1:
		return digests[0]
	default:
		return fmt.Sprintf("one of %d digests", len(digests))
	}
}

func unknownLaunch(refs []Reference) string {
	var counts []int
	for _, ref := range refs {
		if ref.VCPUs != 0 && !slices.Contains(counts, ref.VCPUs) {
			counts = append(counts, ref.VCPUs)
		}
	}
	slices.Sort(counts)
	var text []string
	for _, n := range counts {
		text = append(text, strconv.Itoa(n))
	}
	s := fmt.Sprintf("not one of the %d digests given", len(refs))
	if len(text) > 0 {
		s = fmt.Sprintf("not one of the release's %d launches (vCPUs %s)", len(refs), strings.Join(text, ", "))
	}
	return s + "; another firmware, kernel, initrd, command line, number of vCPUs, CPU model or guest features each give another digest"
}
