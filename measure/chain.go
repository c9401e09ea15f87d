package measure

import (
	"errors"
	"fmt"
)

// run is a number of pages that are added one after the other and alike: the
// first, how many, and whether each next one stands a page higher.
type run struct {
	what  string
	first PageInfo
	pages int
	stays bool // all at the first's address, as VMSAs are
}

// run adds the pages of r.
func (d Digest) run(r run) Digest {
	p := r.first
	for range r.pages {
		d = d.Extend(p)
		if !r.stays {
			p.GPA += PageSize
		}
	}
	return d
}

// launches reports what keeps p from launching f, with hashes or without.
func (f *Firmware) launches(hashes *KernelHashes, p Profile) error {
	switch {
	case f == nil:
		return errors.New("no firmware")
	case !p.known():
		return &ShapeError{"VMM", fmt.Sprintf("%v is not one that can be measured", p)}
	case catalogue[p].Technology != TechnologySNP:
		return &ShapeError{"VMM", fmt.Sprintf("%v launches no SNP guest; its digest is a SHA-256, see MeasureSEV", p)}
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

// sectionRuns are the sections' pages in the order in which p adds them.
func (f *Firmware) sectionRuns(hashes *KernelHashes, p profile) []run {
	var runs, last []run
	for _, s := range f.sections {
		r := run{
			what:  s.Type.String(),
			first: PageInfo{Type: s.Type.pageType(), GPA: uint64(s.GPA)},
			pages: int(s.Size / PageSize),
		}
		switch {
		case s.Type == SectionMemory:
			r.first.Type = p.memory
		case s.Type == SectionCPUID && p.cpuidLast:
			last = append(last, r)
			continue
		case s.Type == SectionKernelHashes && hashes != nil:
			r.first.Type, r.first.Contents = PageNormal, hashPage(hashes.page(f.hashTable))
		}
		runs = append(runs, r)
	}
	return append(runs, last...)
}
