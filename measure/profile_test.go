package measure

import (
	"errors"
	"slices"
	"testing"
)

func TestProfiles(t *testing.T) {
	for _, p := range Profiles() {
		got, err := ParseProfile(p.String())
		if err != nil || got != p {
			t.Errorf("%v: read as %v, %v", p, got, err)
		}
		d := p.Describe()
		if d.Name == "" || d.Version == "" || d.Host == "" || d.Differs == "" || d.Source == "" || d.Technology == 0 {
			t.Errorf("%v: %+v", p, d)
		}
		text, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Profile
		if err := back.UnmarshalText(text); err != nil || back != p {
			t.Errorf("%s: read as %v, %v", text, back, err)
		}
	}
	for name, want := range map[string]Profile{"qemu": QEMU, "ec2": EC2v2026, "svsm": SVSM, "qemu-sev-es": QEMUSEVES, "qemu-sev": QEMUSEV} {
		if p, err := ParseProfile(name); err != nil || p != want {
			t.Errorf("%s: %v, %v, want %v", name, p, err, want)
		}
		// A bare name is for people; what is written down has the version.
		var p Profile
		if err := p.UnmarshalText([]byte(name)); err == nil || p != 0 {
			t.Errorf("%s without a version was read as %v", name, p)
		}
	}
	for name, near := range map[string]string{"gce": "gce@milan", "qemu@7": "qemu@6.11", "": "qemu@6.11", "EC2@2023": "ec2@2023"} {
		p, err := ParseProfile(name)
		unknown, ok := errors.AsType[*UnknownError](err)
		if p != 0 || !ok || !slices.Contains(unknown.Nearest, near) {
			t.Errorf("%q: %v, %v, want an unknown name near to %s", name, p, err, near)
		}
	}
	for _, p := range []Profile{0, profiles} {
		if _, err := p.MarshalText(); err == nil || p.Describe() != (Description{}) || p.TakesKernel() || p.MeasuresCPU() {
			t.Errorf("%v is known", p)
		}
	}
}

// snpShapes are launches of two vCPU counts under every SNP profile that needs no
// SVSM.
func snpShapes(t testing.TB) []Shape {
	var shapes []Shape
	for _, p := range Profiles() {
		if p.Describe().Technology != TechnologySNP || catalogue[p].svsm {
			continue
		}
		for _, cpu := range []string{"EPYC-v4", "EPYC", "EPYC-Genoa"} {
			for _, features := range []uint64{SNPActive, SNPActive | DebugSwap} {
				for _, n := range []int{3, 1, 17} {
					s := shapeOf(t, n, cpu, features)
					s.VMM = p
					shapes = append(shapes, s)
				}
			}
		}
	}
	return shapes
}

// genericSections leaves out what only QEMU is known to add.
func genericSections() image {
	m := amdSev()
	m.metadata = metadata(
		Section{0x800000, 0x9000, SectionMemory},
		Section{0x80d000, 0x1000, SectionSecrets},
		Section{0x80e000, 0x1000, SectionCPUID},
		Section{0x811000, 0x1f000, SectionMemory},
	)
	return m
}

// Every profile gives its own digest, but for CPUs where it measures none; and
// the ways of computing it agree.
func TestProfilesDiffer(t *testing.T) {
	fw := mustParse(t, genericSections().build())
	shapes := snpShapes(t)
	all, err := Matrix(fw, nil, shapes)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Digest]Shape{}
	for i, s := range shapes {
		one, err := Measure(fw, nil, s)
		if err != nil {
			t.Fatal(err)
		}
		if all[i] != one {
			t.Errorf("%+v: %v among all, %v alone", s, all[i], one)
		}
		steps, err := Steps(fw, nil, s)
		if err != nil {
			t.Fatal(err)
		}
		if last := steps[len(steps)-1].State; last != one {
			t.Errorf("%+v: %v by steps, %v", s, last, one)
		}
		s.CPU.Name = ""
		if !s.VMM.MeasuresCPU() {
			s.CPU.Signature = 0
		}
		// Without FPU state and DebugSwap there is no difference between AMD's two.
		if s.VMM == QEMUAMD66 {
			s.VMM = QEMUAMD65
		}
		if other, ok := seen[one]; ok && other != s {
			t.Errorf("%+v and %+v measure alike", s, other)
		}
		seen[one] = s
	}
}

// A firmware made from its state measures as its image does.
func TestStateMeasuresAlike(t *testing.T) {
	fw := mustParse(t, amdSev().build())
	again, err := fw.State().Firmware()
	if err != nil {
		t.Fatal(err)
	}
	hashes := mustHash(t, "kernel", "initrd", "quiet")
	for _, h := range []*KernelHashes{nil, hashes} {
		shape := shapeOf(t, 5, "EPYC-v4", SNPActive)
		a, err := Measure(fw, h, shape)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Measure(again, h, shape)
		if err != nil || a != b {
			t.Errorf("%v, from the state %v, %v", a, b, err)
		}
		steps, err := Steps(again, h, shape)
		if err != nil || steps[0].Pages != int(fw.size)/PageSize || steps[len(steps)-1].State != a {
			t.Errorf("steps from the state: %+v, %v", steps, err)
		}
	}
}

func TestProfilesRefuse(t *testing.T) {
	fw := mustParse(t, amdSev().build())
	unknown := amdSev()
	unknown.metadata = metadata(Section{0x800000, 0x1000, SectionMemory}, Section{0x810000, 0x1000, SectionKernelHashes}, Section{0x801000, 0x1000, 9})
	odd := mustParse(t, unknown.build())
	hashes := &KernelHashes{}
	for _, tt := range []struct {
		name    string
		fw      *Firmware
		hashes  *KernelHashes
		profile Profile
		ok      bool
	}{
		{"QEMU zeroes what it does not know", odd, nil, QEMU, true},
		{"EC2 and a section of unknown type", odd, nil, EC2v2026, false},
		{"GCE and kernel hashes' section", fw, nil, GCEMilan, false},
		{"EC2 and a kernel", fw, hashes, EC2v2026, false},
		{"GCE and a kernel", mustParse(t, genericSections().build()), hashes, GCEGenoa, false},
		{"SVSM without one", fw, nil, SVSM, false},
		{"SEV-ES", fw, nil, QEMUSEVES, false},
	} {
		shape := Shape{VMM: tt.profile, VCPUs: 2, CPU: SignatureCPU(0x800f12), GuestFeatures: tt.profile.Describe().GuestFeatures}
		d, err := Measure(tt.fw, tt.hashes, shape)
		if (err == nil) != tt.ok || (d == Digest{}) == tt.ok {
			t.Errorf("%s: %v, %v", tt.name, d, err)
		}
		all, err := Matrix(tt.fw, tt.hashes, []Shape{shape})
		if (err == nil) != tt.ok || (all == nil) == tt.ok {
			t.Errorf("%s: %v, %v", tt.name, all, err)
		}
		steps, err := Steps(tt.fw, tt.hashes, shape)
		if (err == nil) != tt.ok || (steps == nil) == tt.ok {
			t.Errorf("%s: %v, %v", tt.name, steps, err)
		}
	}
	if all, err := Matrix(fw, nil, []Shape{shapeOf(t, 1, "EPYC", SNPActive), {}}); err == nil || all != nil {
		t.Errorf("a shape of nothing among others: %v, %v", all, err)
	}
}

func TestMeasureSEV(t *testing.T) {
	image := amdSev().build()
	hashes := mustHash(t, "kernel", "initrd", "quiet")
	shape := func(p Profile, vcpus int) Shape {
		return Shape{VMM: p, VCPUs: vcpus, CPU: SignatureCPU(0x800f12)}
	}
	seen := map[SEVDigest]string{}
	for _, tt := range []struct {
		name   string
		hashes *KernelHashes
		shape  Shape
	}{
		{"SEV", nil, shape(QEMUSEV, 1)},
		{"SEV with a kernel", hashes, shape(QEMUSEV, 1)},
		{"SEV-ES", nil, shape(QEMUSEVES, 1)},
		{"SEV-ES of two vCPUs", nil, shape(QEMUSEVES, 2)},
		{"SEV-ES with FPU state", nil, shape(QEMUSEVESInit2, 1)},
		{"SEV-ES with a kernel", hashes, shape(QEMUSEVES, 1)},
	} {
		d, err := SEV(image, tt.hashes, tt.shape)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s measure alike", tt.name, other)
		}
		seen[d] = tt.name
	}
	noTables := make([]byte, 1<<20)
	noArea := amdSev()
	noArea.hashArea = nil
	for _, tt := range []struct {
		name   string
		image  []byte
		hashes *KernelHashes
		shape  Shape
		err    error
	}{
		{"an SNP profile", image, nil, shapeOf(t, 1, "EPYC", SNPActive), nil},
		{"SNPActive", image, nil, Shape{VMM: QEMUSEVES, VCPUs: 1, CPU: SignatureCPU(1), GuestFeatures: SNPActive}, nil},
		{"nothing", nil, nil, shape(QEMUSEV, 1), nil},
		{"half a page", image[:2048], nil, shape(QEMUSEV, 1), nil},
		{"no reset vector", noTables, nil, shape(QEMUSEVES, 1), nil},
		{"no hash area", noArea.build(), hashes, shape(QEMUSEV, 1), ErrNoHashTable},
	} {
		d, err := SEV(tt.image, tt.hashes, tt.shape)
		if err == nil || d != (SEVDigest{}) || tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, %v", tt.name, d, err)
		}
	}
	if _, err := SEV(noTables, nil, shape(QEMUSEV, 1)); err != nil {
		t.Errorf("SEV needs no tables: %v", err)
	}
}

func TestParseFMS(t *testing.T) {
	for s, want := range map[string]uint32{"25/17/1": 0xa10f11, "0x17/0x31/0": 0x830f10, "15/107/1": 0x60fb1, "15/6/1": 0xf61, "24/0/1": 0x900f01, "6/143/8": 0x806f8} {
		if c, err := ParseFMS(s); err != nil || c != SignatureCPU(want) {
			t.Errorf("%s: %+v, %v, want %#x", s, c, err, want)
		}
	}
	for _, s := range []string{"", "25", "25/17", "25/17/1/0", "271/0/0", "25/256/0", "25/17/16", "-1/0/0", "a/b/c"} {
		if c, err := ParseFMS(s); err == nil || c != (CPU{}) {
			t.Errorf("%q was read as %+v", s, c)
		}
	}
}
