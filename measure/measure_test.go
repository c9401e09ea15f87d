package measure

import (
	"crypto/sha512"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func mustParse(t testing.TB, image []byte) *Firmware {
	t.Helper()
	fw, err := ParseFirmware(image)
	if err != nil {
		t.Fatal(err)
	}
	return fw
}

func mustHash(t testing.TB, kernel, initrd, cmdline string) *KernelHashes {
	t.Helper()
	h, err := HashKernel(strings.NewReader(kernel), strings.NewReader(initrd), cmdline)
	if err != nil {
		t.Fatal(err)
	}
	return &h
}

func shapeOf(t testing.TB, vcpus int, cpu string, features uint64) Shape {
	t.Helper()
	c, err := ParseCPU(cpu)
	if err != nil {
		t.Fatal(err)
	}
	return Shape{VMM: QEMU, VCPUs: vcpus, CPU: c, GuestFeatures: features}
}

// Every input makes a difference, and twice the same makes none.
func TestEveryInputCounts(t *testing.T) {
	base := amdSev().build()
	flip := func(offset int) *Firmware {
		b := append([]byte(nil), base...)
		b[offset] ^= 1
		return mustParse(t, b)
	}
	fw := mustParse(t, base)
	shape := shapeOf(t, 2, "EPYC-v4", SNPActive)
	with := func(change func(*Shape)) Shape {
		s := shape
		change(&s)
		return s
	}
	hashes := mustHash(t, "kernel", "initrd", "quiet")
	seen := map[Digest]string{}
	for _, tt := range []struct {
		name   string
		fw     *Firmware
		hashes *KernelHashes
		shape  Shape
	}{
		{"base", fw, hashes, shape},
		{"firmware's first byte", flip(0), hashes, shape},
		{"firmware's last byte", flip(len(base) - 1), hashes, shape},
		{"kernel's byte", fw, mustHash(t, "Kernel", "initrd", "quiet"), shape},
		{"initrd's byte", fw, mustHash(t, "kernel", "Initrd", "quiet"), shape},
		{"no initrd", fw, mustHash(t, "kernel", "", "quiet"), shape},
		{"one more word", fw, mustHash(t, "kernel", "initrd", "quiet debug"), shape},
		{"one more space", fw, mustHash(t, "kernel", "initrd", "quiet "), shape},
		{"no hashes", fw, nil, shape},
		{"one vCPU", fw, hashes, with(func(s *Shape) { s.VCPUs = 1 })},
		{"three vCPUs", fw, hashes, with(func(s *Shape) { s.VCPUs = 3 })},
		{"another CPU", fw, hashes, shapeOf(t, 2, "EPYC-Milan-v2", SNPActive)},
		{"another feature", fw, hashes, with(func(s *Shape) { s.GuestFeatures |= 1 << 5 })},
	} {
		got, err := Measure(tt.fw, tt.hashes, tt.shape)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s measure alike", tt.name, other)
		}
		seen[got] = tt.name
		if again, _ := Measure(tt.fw, tt.hashes, tt.shape); again != got {
			t.Errorf("%s: %v, then %v", tt.name, got, again)
		}
	}
	// The CPU's version is not measured, its signature is.
	a, _ := Measure(fw, hashes, shape)
	b, _ := Measure(fw, hashes, with(func(s *Shape) { s.CPU = SignatureCPU(0x800f12) }))
	if a != b {
		t.Errorf("EPYC-v4 %v, its signature %v", a, b)
	}
}

func TestMeasureRefuses(t *testing.T) {
	fw := mustParse(t, amdSev().build())
	noArea, noSection := amdSev(), amdSev()
	noArea.hashArea = nil
	noSection.metadata = metadata(Section{0x800000, 0x1000, SectionMemory})
	good := shapeOf(t, 1, "EPYC-v4", SNPActive)
	for _, tt := range []struct {
		name   string
		fw     *Firmware
		hashes *KernelHashes
		change func(*Shape)
		err    string
	}{
		{"no firmware", nil, nil, func(*Shape) {}, "no firmware"},
		{"no VMM", fw, nil, func(s *Shape) { s.VMM = 0 }, "VMM: profile 0 is not one"},
		{"no vCPU", fw, nil, func(s *Shape) { s.VCPUs = 0 }, "vCPUs: 0 is not between 1 and 512"},
		{"too many vCPUs", fw, nil, func(s *Shape) { s.VCPUs = 513 }, "vCPUs: 513"},
		{"no CPU", fw, nil, func(s *Shape) { s.CPU = CPU{} }, "CPU: no signature"},
		{"not SNP", fw, nil, func(s *Shape) { s.GuestFeatures = 0x20 }, "SNPActive (bit 0) clear"},
		{"unknown feature", fw, nil, func(s *Shape) { s.GuestFeatures = 1<<40 | 1 }, "unknown bits 0x10000000000"},
		{"no hash area", mustParse(t, noArea.build()), &KernelHashes{}, func(*Shape) {}, "no SEV hash table in its GUID table"},
		{"no hash section", mustParse(t, noSection.build()), &KernelHashes{}, func(*Shape) {}, "no SNP_KERNEL_HASHES section"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shape := good
			tt.change(&shape)
			got, err := Measure(tt.fw, tt.hashes, shape)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
			if got != (Digest{}) {
				t.Error("a digest beside the error")
			}
		})
	}
}

func TestHashKernelRefuses(t *testing.T) {
	if _, err := HashKernel(strings.NewReader(""), nil, "quiet\x00debug"); err == nil || !strings.Contains(err.Error(), "NUL at offset 5") {
		t.Errorf("NUL in the command line: %v", err)
	}
	if _, err := HashKernel(iotest.ErrReader(os.ErrClosed), nil, ""); err == nil {
		t.Error("a kernel that cannot be read was hashed")
	}
	if _, err := HashKernel(strings.NewReader(""), iotest.ErrReader(os.ErrClosed), ""); err == nil {
		t.Error("an initrd that cannot be read was hashed")
	}
}

func TestParse(t *testing.T) {
	for _, name := range []string{"EPYC", "EPYC-IBPB", "EPYC-v4", "EPYC-Rome-v5", "EPYC-Milan-v2", "EPYC-Genoa-v1", "EPYC-Turin-v2"} {
		if c, err := ParseCPU(name); err != nil || c.Name != name || c.Signature == 0 {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	for _, name := range []string{"", "epyc", "EPYC-v0", "EPYC-v6", "EPYC-Milan-v9", "host", "EPYC-v4 "} {
		if c, err := ParseCPU(name); err == nil || c != (CPU{}) {
			t.Errorf("%q was taken as %+v", name, c)
		}
	}
	for _, s := range []string{"", "00", strings.Repeat("0", 95), strings.Repeat("0", 98), strings.Repeat("g", 96)} {
		if d, err := ParseDigest(s); err == nil || d != (Digest{}) {
			t.Errorf("%q was taken as %v", s, d)
		}
	}
}

// Beside the limit: SHA-384 over the same bytes, on one processor.
func BenchmarkMeasure(b *testing.B) {
	m := amdSev()
	m.size = 4 << 20
	image := m.build()
	hashes := mustHash(b, "kernel", "initrd", "quiet")
	shape := shapeOf(b, 4, "EPYC-v4", SNPActive)
	b.Run("firmware", func(b *testing.B) {
		b.SetBytes(int64(len(image)))
		for b.Loop() {
			if _, err := Measure(mustParse(b, image), hashes, shape); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sha384", func(b *testing.B) {
		b.SetBytes(int64(len(image)))
		for b.Loop() {
			sha512.Sum384(image)
		}
	})
	fw := mustParse(b, image)
	b.Run("shape", func(b *testing.B) {
		for b.Loop() {
			if _, err := Measure(fw, hashes, shape); err != nil {
				b.Fatal(err)
			}
		}
	})
}
