package igvm

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure"
)

// added is a page that QEMU adds to the chain, worked out by hand from QEMU's
// source and KVM's; no machine was at hand to try it on.
type added struct {
	kind    measure.PageType
	gpa     uint64
	content []byte
}

func normal(gpa uint64, fill byte) added {
	return added{measure.PageNormal, gpa, bytes.Repeat([]byte{fill}, 4096)}
}

func vCPUState(page []byte) added { return added{measure.PageVMSA, 0xfffffffff000, page} }

// atReset is a vCPU that the file does not have.
func atReset(t *testing.T, features uint64) added {
	shape := measure.Shape{VMM: measure.QEMU, VCPUs: 1, CPU: cpu(t), GuestFeatures: features}
	return vCPUState(measure.ResetVMSA(0xfffffff0, shape)[:])
}

func chain(pages []added) measure.Digest {
	var d measure.Digest
	for _, p := range pages {
		info := measure.PageInfo{Type: p.kind, GPA: p.gpa}
		if p.content != nil {
			info.Contents = sha512.Sum384(p.content)
		}
		d = d.Extend(info)
	}
	return d
}

func run(kind measure.PageType, gpa uint64, content []byte, n int) []added {
	var pages []added
	for i := range n {
		pages = append(pages, added{kind, gpa + 4096*uint64(i), content})
	}
	return pages
}

func TestQEMU(t *testing.T) {
	zeros := make([]byte, 4096)
	parameters := added{measure.PageUnmeasured, params, nil}
	all := func(groups ...[]added) []added {
		var pages []added
		for _, g := range groups {
			pages = append(pages, g...)
		}
		return pages
	}
	for _, tt := range []struct {
		name  string
		file  *builder
		vcpus int
		want  []added
	}{
		{"each sort of page", plain(), 1, []added{
			parameters, normal(first, 1), normal(first+0x1000, 2), normal(first+0x2000, 0), normal(first+0x3000, 0), normal(first+0x4000, 1),
			{measure.PageUnmeasured, unshared, nil},
			{measure.PageSecrets, 0x30000, nil},
			{measure.PageCPUID, 0x31000, nil},
			{measure.PageCPUID, 0x32000, nil},
			vCPUState(vmsa()),
		}},
		{"an area is whole", wide(), 1, []added{
			parameters, {measure.PageUnmeasured, params + 0x1000, nil}, normal(first, 1), atReset(t, 1),
		}},
		{"shared pages are private", shared(), 1, []added{normal(first, 1), normal(first+0x1000, 2), atReset(t, 1)}},
		{"2 MiB", huge(), 1, all(
			[]added{normal(first, 1)}, run(measure.PageNormal, 0x200000, zeros, 512), run(measure.PageSecrets, 0x400000, nil, 512), []added{atReset(t, 1)},
		)},
		{"of 2 MiB, 4 KiB are read", hugeData(), 1, all(
			[]added{normal(0x200000, 6)}, run(measure.PageNormal, 0x201000, zeros, 511), []added{atReset(t, 1)},
		)},
		// The region at first is added when the next page is none of it, behind the area.
		{"an area overtakes a region", late(), 1, []added{
			normal(0x50000, 9), parameters, normal(first, 1), normal(first+0x1000, 2), normal(first+0x2000, 3), atReset(t, 1),
		}},
		{"vCPUs come last", early(), 1, []added{normal(first, 1), vCPUState(vmsa())}},
		{"other vCPUs are at reset, with the first one's features", early(), 3, []added{
			normal(first, 1), vCPUState(vmsa()), atReset(t, 0x29), atReset(t, 0x29),
		}},
		{"two vCPUs of three", two(), 3, []added{
			normal(first, 1), vCPUState(vmsa()), vCPUState(vmsa(func(b []byte) { b[0x178] = 4 })), atReset(t, 0x29),
		}},
		{"SEV-ES's vCPU is not SEV-SNP's", alsoSEVES(), 1, []added{normal(first, 1), vCPUState(vmsa())}},
		{"no vCPU, no policy", free(), 2, []added{normal(first, 1), atReset(t, 1), atReset(t, 1)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := mustLoad(t, tt.file.build(), QEMU)
			got, err := i.Measure(tt.vcpus, cpu(t))
			if err != nil {
				t.Fatal(err)
			}
			if want := chain(tt.want); got != want {
				t.Errorf("%v, want %v", got, want)
			}
			if i.MeasuresCPU(tt.vcpus) != (i.VCPUs() < tt.vcpus) {
				t.Errorf("the CPU counts: %v, with %d of %d vCPUs from the file", i.MeasuresCPU(tt.vcpus), i.VCPUs(), tt.vcpus)
			}
		})
	}
}

// Every step follows from the one before, and the last is what Measure returns.
func TestSteps(t *testing.T) {
	for _, l := range Loaders() {
		for _, file := range []*builder{plain(), wide(), shared(), huge(), alsoSEVES(), late(), early(), two()} {
			i := mustLoad(t, file.build(), l)
			vcpus := i.VCPUs()
			if l == QEMU {
				vcpus = 4
			}
			steps, err := i.Steps(vcpus, cpu(t))
			if err != nil {
				t.Fatal(err)
			}
			var digest measure.Digest
			for n, s := range steps {
				if digest = s.After(digest); digest != s.State {
					t.Errorf("%v: step %d (%s): %v, want %v", l, n, s.What, s.State, digest)
				}
			}
			if want, err := i.Measure(vcpus, cpu(t)); err != nil || digest != want {
				t.Errorf("%v: steps lead to %v, Measure to %v, %v", l, digest, want, err)
			}
		}
	}
	steps, err := mustLoad(t, plain().build(), QEMU).Steps(3, cpu(t))
	if err != nil {
		t.Fatal(err)
	}
	type line struct {
		What  string
		Type  measure.PageType
		GPA   uint64
		Pages int
	}
	var got []line
	for _, s := range steps {
		got = append(got, line{s.What, s.Type, s.GPA, s.Pages})
	}
	if diff := cmp.Diff([]line{
		{"parameters", measure.PageUnmeasured, params, 1},
		{"data", measure.PageNormal, first, 1},
		{"data", measure.PageNormal, first + 0x1000, 1},
		{"zeros", measure.PageNormal, first + 0x2000, 2},
		{"data", measure.PageNormal, first + 0x4000, 1},
		{"unmeasured data", measure.PageUnmeasured, unshared, 1},
		{"secrets", measure.PageSecrets, 0x30000, 1},
		{"CPUID", measure.PageCPUID, 0x31000, 2},
		{"vCPU 0", measure.PageVMSA, 0xfffffffff000, 1},
		{"vCPUs at reset", measure.PageVMSA, 0xfffffffff000, 2},
	}, got); diff != "" {
		t.Error(diff)
	}
}

func TestQEMURefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		file *builder
		err  string
	}{
		{"a type it does not know", plain().add(0x30d, uint64(0), uint32(vsm), uint32(4096)), "header 19 (ERROR_RANGE at 0x230): qemu@10.1 refuses it: it does not know this type of header, whatever the platform"},
		{"relocation", (&builder{version: 1}).platform(snp, 2).add(0x102, [48]byte{}).data(snp, first, 1), "header 1 (RELOCATABLE_REGION at 0x30): qemu@10.1 refuses it"},
		{"nothing", (&builder{version: 1}).platform(snp, 2).platform(vsm, 1).data(vsm, first, 1), "it puts nothing into an SEV-SNP guest"},
		{"a page twice", shared().data(snp, first, 2), "header 4 (PAGE_DATA at 0x88): qemu@10.1 refuses it: the page at 0x10000 is given twice, also by header 2 (PAGE_DATA at 0x48)"},
		{"a page in an area", wide().data(snp, params+0x1000, 2), "the page at 0x9000 is given twice, also by header 3 (PARAMETER_INSERT at"},
		{"a page in a page of 2 MiB", huge().data(snp, 0x3ff000, 2), "the page at 0x3ff000 is given twice"},
		{"the VMSA elsewhere", free().context(snp, 0x7000, 0, vmsa()), "header 2 (VP_CONTEXT at 0x50): qemu@10.1 refuses it: GPA 0x7000, want 0xfffffffff000, where KVM puts every VMSA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := mustOpen(t, tt.file.build()).Load(QEMU)
			refused := (*RefusedError)(nil)
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, want %q", err, tt.err)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	f := mustOpen(t, (&builder{version: 1}).platform(vsm, 1).data(vsm, first, 1).build())
	if _, err := f.Load(QEMU); !errors.Is(err, ErrNoSNP) {
		t.Errorf("a file for VSM alone: %v, want ErrNoSNP", err)
	}
	if _, err := mustOpen(t, plain().build()).Load(0); err == nil {
		t.Error("no loader: no error")
	}
}

func TestMeasureRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		file  *builder
		l     Loader
		vcpus int
		cpu   measure.CPU
		err   string
	}{
		{"no vCPU", plain(), QEMU, 0, cpu(t), "vCPUs: 0 is not between 1 and 512"},
		{"too many", plain(), QEMU, 513, cpu(t), "vCPUs: 513"},
		{"fewer than in the file", two(), QEMU, 1, cpu(t), "vCPUs: 1, and the file has the state of vCPU 1, counted from 0: QEMU refuses that"},
		{"no CPU for a vCPU at reset", plain(), QEMU, 2, measure.CPU{}, "CPU: no signature"},
		{"more than in the file", plain(), IGVMMeasure, 2, cpu(t), "vCPUs: 2, and igvmmeasure@2026 measures those that the file has, 1"},
		{"more than in the file, OpenVMM", plain(), OpenVMM, 2, cpu(t), "vCPUs: 2, and openvmm@2026"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := mustLoad(t, tt.file.build(), tt.l)
			d, err := i.Measure(tt.vcpus, tt.cpu)
			shape := (*measure.ShapeError)(nil)
			if !errors.As(err, &shape) || !strings.Contains(err.Error(), tt.err) || d != (measure.Digest{}) {
				t.Errorf("%v, %v, want %q", d, err, tt.err)
			}
			if steps, err := i.Steps(tt.vcpus, tt.cpu); err == nil || steps != nil {
				t.Errorf("Steps: %v, %v", steps, err)
			}
		})
	}
	// Where no vCPU is at reset, the CPU does not count.
	if _, err := mustLoad(t, plain().build(), QEMU).Measure(1, measure.CPU{}); err != nil {
		t.Error(err)
	}
}
