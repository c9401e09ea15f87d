package explain

import (
	"encoding/binary"
	"fmt"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/explain/internal/lanes"
)

// Offsets in a VMSA page of what is searched. Source: AMD 24593 rev 3.42 (APM
// volume 2), table B-4.
const (
	offsetRDX         = 0x310
	offsetSEVFeatures = 0x3b0
)

// bspReset is where the first vCPU starts but for an SVSM's: measure.ResetVMSA.
const bspReset = 0xfffffff0

// start is a digest before the first vCPU, and the launches that have it.
type start struct {
	digest   measure.Digest
	launches []vmmBoot
}

// vmmBoot is a boot by a VMM.
type vmmBoot struct {
	vmm  measure.Profile
	boot boot
}

// kind is all launches that add the same VMSAs. Profiles that differ in what comes
// before them alone are of one kind.
type kind struct {
	bsp, ap *lanes.Pages
	rest    [16]byte        // of PAGE_INFO, behind CONTENTS
	vmm     measure.Profile // one of those of the kind
	cpus    []uint32        // signatures; a single zero where the CPU is not measured
	near    []*start        // boots that differ from a source in one flag at most
	far     []*start
}

// plan is a space as it is searched.
type plan struct {
	Space
	path  lanes.Path
	masks []uint64
	kinds []*kind
	size  Size
}

// Size is how large a space is. Launches that add the same pages have one digest:
// CPU models of one signature, profiles that ignore the CPU or differ in nothing
// that this firmware shows.
type Size struct {
	Launches uint64 `json:"launches"`
	Digests  uint64 `json:"digests"` // distinct ones
}

func newPlan(s Space, path lanes.Path) (*plan, error) {
	boots, err := s.boots()
	if err != nil {
		return nil, err
	}
	p := &plan{Space: s, path: path, masks: s.masks()}
	kinds, starts := map[string]*kind{}, map[string]*start{}
	for _, f := range s.firmwares() {
		fw := s.Sources[f].Firmware
		for _, vmm := range snpProfiles() {
			if _, err := fw.Prefix(nil, vmm); err != nil {
				continue // this VMM cannot launch this firmware
			}
			key := kindKey(fw, vmm)
			if kinds[key] == nil {
				k, err := p.newKind(fw, vmm)
				if err != nil {
					return nil, err
				}
				kinds[key] = k
				p.kinds = append(p.kinds, k)
			}
			for _, b := range boots {
				if b.firmware != f || b.hashes != nil && !vmm.TakesKernel() {
					continue
				}
				digest, err := fw.Prefix(b.hashes, vmm)
				if err != nil {
					return nil, err
				}
				st := starts[key+string(digest[:])]
				if st == nil {
					st = &start{digest: digest}
					starts[key+string(digest[:])] = st
					kinds[key].add(st, b)
				}
				st.launches = append(st.launches, vmmBoot{vmm, b})
			}
		}
	}
	p.size = p.count()
	return p, nil
}

// add files a start by its first boot: the others' differ in nothing measured.
func (k *kind) add(st *start, b boot) {
	if b.differs <= 1 {
		k.near = append(k.near, st)
	} else {
		k.far = append(k.far, st)
	}
}

// bspEIP is where the first vCPU starts.
func bspEIP(fw *measure.Firmware, vmm measure.Profile) uint32 {
	sample := measure.Shape{VMM: vmm, VCPUs: 2, GuestFeatures: measure.SNPActive}
	if bsp, ap := fw.VMSAs(sample); bsp == ap {
		return fw.State().ResetVector
	}
	return bspReset
}

// kindKey is the same for launches of one kind: the pages with two shapes show
// where RDX and SEV_FEATURES go, and everything else.
func kindKey(fw *measure.Firmware, vmm measure.Profile) string {
	var key string
	for _, s := range samples(vmm) {
		bsp, ap := fw.VMSAs(s)
		key += fmt.Sprint(bsp, ap)
	}
	return key
}

func samples(vmm measure.Profile) [2]measure.Shape {
	return [2]measure.Shape{
		{VMM: vmm, VCPUs: 2, GuestFeatures: measure.SNPActive},
		{VMM: vmm, VCPUs: 2, GuestFeatures: measure.KnownFeatures, CPU: measure.SignatureCPU(0x12345678)},
	}
}

func (p *plan) newKind(fw *measure.Firmware, vmm measure.Profile) (*kind, error) {
	sample := samples(vmm)
	bsp, _ := fw.VMSAs(sample[0])
	k := &kind{rest: rest(bsp), vmm: vmm, cpus: []uint32{0}}
	if vmm.MeasuresCPU() {
		k.cpus = k.cpus[:0]
		for _, c := range p.cpus() {
			k.cpus = append(k.cpus, c.Signature)
		}
		k.cpus = distinct(k.cpus)
	}
	page := func(eip uint32) *lanes.Pages {
		return lanes.NewPages(p.path, measure.ResetVMSA(eip, sample[0]), offsetRDX, offsetSEVFeatures+8)
	}
	k.bsp, k.ap = page(bspEIP(fw, vmm)), page(fw.State().ResetVector)

	// Premise: the VMSAs are what package measure makes them.
	for _, s := range sample {
		o := k.newOctet()
		o.pairs = append(o.pairs, pair{s.CPU.Signature, s.GuestFeatures})
		o.hash()
		bsp, ap := fw.VMSAs(s)
		if o.bsp.contents.Lane(0) != bsp.Contents || o.ap.contents.Lane(0) != ap.Contents || rest(ap) != k.rest {
			return nil, fmt.Errorf("VMSAs of %v: not those that package measure computes", vmm)
		}
	}
	return k, nil
}

// rest is PAGE_INFO from offset 0x60: length, page type, zeros, address.
// Source: as for measure.Digest.Extend.
func rest(p measure.PageInfo) (b [16]byte) {
	binary.LittleEndian.PutUint16(b[0:], 0x70)
	b[2] = byte(p.Type)
	binary.LittleEndian.PutUint64(b[8:], p.GPA)
	return b
}

// count counts the space.
func (p *plan) count() Size {
	var size Size
	each := uint64(len(p.masks)) * uint64(p.VCPUs)
	for _, k := range p.kinds {
		for _, starts := range [][]*start{k.near, k.far} {
			size.Digests += uint64(len(starts)) * uint64(len(k.cpus)) * each
			for _, st := range starts {
				size.Launches += uint64(len(st.launches)) * uint64(len(p.cpus())) * each
			}
		}
	}
	return size
}
