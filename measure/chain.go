package measure

import (
	"errors"
	"fmt"
)

// Step is a run of pages that are added one after the other, and the digest
// after them. Each page stands behind the one before, but VMSAs at one address.
type Step struct {
	What  string   `json:"what"` // what the pages are
	Type  PageType `json:"type"`
	GPA   uint64   `json:"gpa"` // of the first page
	Pages int      `json:"pages"`
	// Contents is SHA-384 of each page, zero where contents are not measured; and
	// for the firmware where only the digest after it is known.
	Contents Digest `json:"contents,omitzero"`
	State    Digest `json:"state"`
}

// End is the address behind the last page.
func (s Step) End() uint64 {
	if s.Type == PageVMSA {
		return s.GPA + PageSize
	}
	return s.GPA + uint64(s.Pages)*PageSize
}

// After returns the digest after the step's pages, when d is the one before.
func (s Step) After(d Digest) Digest {
	p := PageInfo{Contents: s.Contents, Type: s.Type, GPA: s.GPA}
	for range s.Pages {
		d = d.Extend(p)
		if s.Type != PageVMSA {
			p.GPA += PageSize
		}
	}
	return d
}

// Steps returns the account of a launch digest: what Measure adds, in order. The
// last step's state is the launch digest. A firmware that was made from a
// FirmwareState is one step, whose contents are not known.
func Steps(fw *Firmware, hashes *KernelHashes, shape Shape) ([]Step, error) {
	if err := shape.Check(); err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	if err := fw.launches(hashes, shape.VMM); err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	steps, digest := fw.imageSteps()
	bsp, ap := fw.VMSAs(shape)
	rest := append(fw.sectionSteps(hashes, catalogue[shape.VMM]),
		Step{What: "vCPU 0", Type: bsp.Type, GPA: bsp.GPA, Pages: 1, Contents: bsp.Contents})
	if n := shape.VCPUs - 1; n > 0 {
		rest = append(rest, Step{What: "other vCPUs", Type: ap.Type, GPA: ap.GPA, Pages: n, Contents: ap.Contents})
	}
	for _, s := range rest {
		digest = s.After(digest)
		s.State = digest
		steps = append(steps, s)
	}
	return steps, nil
}

// imageSteps are the steps of the firmware's image and the SVSM's, a page each,
// and the digest after them.
func (f *Firmware) imageSteps() ([]Step, Digest) {
	gpa := fourGiB - uint64(f.size)
	if f.contents == nil {
		return []Step{{What: "firmware", Type: PageNormal, GPA: gpa, Pages: int(f.size / PageSize), State: f.digest}}, f.digest
	}
	var steps []Step
	var digest Digest
	add := func(what string, gpa uint64, contents []Digest) {
		for i, c := range contents {
			s := Step{What: what, Type: PageNormal, GPA: gpa + uint64(i)*PageSize, Pages: 1, Contents: c}
			digest = s.After(digest)
			s.State = digest
			steps = append(steps, s)
		}
	}
	add("firmware", gpa, f.contents)
	if f.svsm != nil {
		add("SVSM", f.svsm.gpa, f.svsm.contents)
	}
	return steps, digest
}

// launches reports what keeps p from launching f, with hashes or without.
func (f *Firmware) launches(hashes *KernelHashes, p Profile) error {
	switch {
	case f == nil:
		return errors.New("no firmware")
	case !p.known():
		return &ShapeError{"VMM", fmt.Sprintf("%v is not one that can be measured", p)}
	case catalogue[p].Technology != TechnologySNP:
		return &ShapeError{"VMM", fmt.Sprintf("%v launches no SNP guest; its digest is a SHA-256, see SEV", p)}
	case catalogue[p].svsm != (f.svsm != nil):
		return &ShapeError{"VMM", fmt.Sprintf("%v and the firmware do not agree on whether there is an SVSM", p)}
	case hashes != nil && !p.TakesKernel():
		return &ShapeError{"VMM", fmt.Sprintf("%v loads no kernel, and no hashes of one", p)}
	case hashes != nil && !f.takesHashes:
		return fmt.Errorf("%w: it has %s", ErrNoHashTable, f.whyNoHashes())
	case !p.TakesKernel() && f.svsm == nil:
		return checkGuessed(f.sections, p)
	}
	return nil
}

// checkGuessed refuses sections of which it is not known how a VMM other than
// QEMU adds them.
func checkGuessed(sections []Section, p Profile) error {
	for i, s := range sections {
		if !s.Type.Known() || s.Type == SectionKernelHashes && catalogue[p].memory == PageUnmeasured {
			return fmt.Errorf("SEV metadata: section %d: type %v: it is not known how %v adds it", i, s.Type, p)
		}
	}
	return nil
}

// sectionSteps are the sections' pages in the order in which p adds them, without
// the digests after them.
func (f *Firmware) sectionSteps(hashes *KernelHashes, p profile) []Step {
	var steps, last []Step
	for _, section := range f.sections {
		s := Step{
			What:  section.Type.String(),
			Type:  section.Type.pageType(),
			GPA:   uint64(section.GPA),
			Pages: int(section.Size / PageSize),
		}
		switch {
		case section.Type == SectionMemory:
			s.Type = p.memory
		case section.Type == SectionCPUID && p.cpuidLast:
			last = append(last, s)
			continue
		case section.Type == SectionKernelHashes && hashes != nil:
			// The table stands in the first page, zeros in those behind it.
			s.Type, s.Contents = PageNormal, hashPage(hashes.page(f.hashTable))
			if behind := s.Pages - 1; behind > 0 {
				s.Pages = 1
				steps = append(steps, s)
				s.Pages, s.GPA, s.Contents = behind, s.GPA+PageSize, hashPage(&[PageSize]byte{})
			}
		}
		steps = append(steps, s)
	}
	return append(steps, last...)
}
