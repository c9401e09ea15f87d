package measure

import (
	"strings"
	"testing"
)

// svsmImages are a firmware and an SVSM, to be changed by a test.
func svsmImages(change func(*image)) (firmware, svsm []byte) {
	m := image{
		size: 76 << 10,
		metadata: metadata(
			Section{0x806000, 0x1000, SectionMemory},
			Section{0x80d000, 0x1000, SectionSecrets},
			Section{0x80e000, 0x1000, SectionCPUID},
		),
		extra:  []tableEntry{{guidSVSMInfo, u32(0x1040)}},
		footer: guidFooter,
	}
	change(&m)
	return amdSev().build(), m.build()
}

func TestSVSM(t *testing.T) {
	const vars = 528 << 10
	shape := Shape{VMM: SVSM, VCPUs: 3, CPU: SignatureCPU(0x800f12), GuestFeatures: SNPActive}
	parse := func(change func(*image), vars int64) *Firmware {
		t.Helper()
		firmware, svsm := svsmImages(change)
		fw, err := ParseSVSM(firmware, svsm, vars)
		if err != nil {
			t.Fatal(err)
		}
		return fw
	}
	fw := parse(func(*image) {}, vars)
	seen := map[Digest]string{}
	for name, launch := range map[string]struct {
		fw    *Firmware
		shape Shape
	}{
		"base":              {fw, shape},
		"no FPU state":      {fw, Shape{SVSMNoFPU, 3, shape.CPU, SNPActive}},
		"one vCPU":          {fw, Shape{SVSM, 1, shape.CPU, SNPActive}},
		"another store":     {parse(func(*image) {}, vars+4096), shape},
		"another entry":     {parse(func(m *image) { m.extra[0].data = u32(0x1050) }, vars), shape},
		"another SVSM size": {parse(func(m *image) { m.size += 4096 }, vars), shape},
	} {
		d, err := Measure(launch.fw, nil, launch.shape)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s measure alike", name, other)
		}
		seen[d] = name
		steps, err := Steps(launch.fw, nil, launch.shape)
		if err != nil || steps[len(steps)-1].State != d {
			t.Errorf("%s: steps end elsewhere: %v", name, err)
		}
	}
	if _, err := Measure(fw, nil, Shape{QEMU, 1, shape.CPU, SNPActive}); err == nil {
		t.Error("QEMU launched it without the SVSM")
	}
	// A state would leave the SVSM out: there is none.
	if again, err := fw.State().Firmware(); err == nil || again != nil {
		t.Errorf("its state made %+v", again)
	}
}

func TestSVSMRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*image)
		vars   int64
		err    string
	}{
		{"no entry point", func(m *image) { m.extra = nil }, 0, "(SVSM_INFO): 0 bytes, want 4"},
		{"entry point beyond it", func(m *image) { m.extra[0].data = u32(1 << 20) }, 0, "offset 0x100000 is beyond"},
		{"no table", func(m *image) { m.footer = guid{} }, 0, "no OVMF table"},
		{"no metadata", func(m *image) { m.metadata = nil }, 0, "SEV metadata"},
		{"half a page", func(m *image) { m.size = 76<<10 + 2048 }, 0, "want a multiple of 4096"},
		{"store of half a page", func(*image) {}, 2048, "variable store of 2048 bytes"},
		{"store of less than nothing", func(*image) {}, -4096, "variable store of -4096 bytes"},
		{"section over the SVSM", func(m *image) { m.metadata = metadata(Section{0xfffcd000, 0x1000, SectionMemory}) }, 0, "reaches into"},
	} {
		firmware, svsm := svsmImages(tt.change)
		fw, err := ParseSVSM(firmware, svsm, tt.vars)
		if err == nil || fw != nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.err)
		}
	}
}

func FuzzParseSVSM(f *testing.F) {
	firmware, whole := svsmImages(func(*image) {})
	f.Add(whole[len(whole)-8<<10:], int64(0))
	f.Fuzz(func(t *testing.T, tail []byte, vars int64) {
		// The tables stand at the end: the fuzzer's bytes are the end of 8 KiB.
		svsm := make([]byte, 8<<10)
		copy(svsm[max(0, len(svsm)-len(tail)):], tail)
		fw, err := ParseSVSM(firmware, svsm, vars)
		if err != nil {
			if fw != nil {
				t.Fatal("a value beside the error")
			}
			return
		}
		if _, err := Measure(fw, nil, Shape{SVSM, 2, SignatureCPU(0x800f12), SNPActive}); err != nil {
			t.Fatalf("an accepted SVSM cannot be measured: %v", err)
		}
	})
}
