package measure

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"os"
	"path/filepath"
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

// vector is a digest that the Python tool sev-snp-measure computed, at commit
// 8f2b337e38bc83f87cd30f3253cdfe8e3e12cc3a of github.com/virtee/sev-snp-measure:
//
//	printf 'kernel of the test' >k; printf 'initrd of the test' >i
//	sev-snp-measure.py --mode snp --vcpus N --vcpu-type CPU --guest-features F \
//	    --ovmf IMAGE --kernel k --initrd i --append 'console=ttyS0 quiet'
//
// or, without hashes, with no --kernel, --initrd and --append.
type vector struct {
	vcpus    int
	cpu      string
	features uint64
	hashes   bool
	digest   string
}

func checkVectors(t *testing.T, fw *Firmware, vectors []vector) {
	t.Helper()
	hashes := mustHash(t, "kernel of the test", "initrd of the test", "console=ttyS0 quiet")
	for _, v := range vectors {
		given := hashes
		if !v.hashes {
			given = nil
		}
		got, err := Measure(fw, given, shapeOf(t, v.vcpus, v.cpu, v.features))
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != v.digest {
			t.Errorf("%d × %s, features %#x, hashes %v: %v, want %s", v.vcpus, v.cpu, v.features, v.hashes, got, v.digest)
		}
	}
}

func TestPeerVectors(t *testing.T) {
	image := amdSev().build()
	const sum = "e9352a5abb124111c9e58b77cf18bcb3b62e38aca29921bf11d01c9b3d7b61e7"
	if got := sha256.Sum256(image); hex.EncodeToString(got[:]) != sum {
		t.Fatalf("the image has SHA-256 %x, the vectors are for %s", got, sum)
	}
	checkVectors(t, mustParse(t, image), []vector{
		{1, "EPYC-v4", 0x1, true, "f14212b7c45f7d6482a252dc08dbec12130f5d322037e293bf9a4be6aad6b4583d526f9c0a7df52cae29c87f1d50c73e"},
		{4, "EPYC-v4", 0x1, true, "d64b236eceedf22007b3811bbec94f2bbadf1ad15056c7a17e02f90459d9e5f15c8f8b5598489a1545900e3b4d124f87"},
		{2, "EPYC-Milan-v2", 0x1, true, "c966d07b068824478511dae53cb0b38df80c97a6b2f725bcae78cb54492f1e07b35ae52134cf73086a0f12eccf523e0d"},
		{2, "EPYC-Genoa-v1", 0x1, true, "15450e869189abaab0d50565869d28e7a3ce480fecc10441d07295b8519df6dd40266055b81ccc95961394de9cadff7b"},
		{3, "EPYC-Rome-v3", 0x21, true, "d62bbc7fdde9329253e94013401852858841b95a1f148de897c47e5fcdcf0461bb21a4ac3b6b83e9569409fac1495106"},
		{2, "EPYC-Turin", 0x1, true, "adca68e44353131070bf757a2ea7a1134a95d43d8a978518155b828f3d35f2ac33a4f94b3e035cb4ff43576a3977f017"},
		{1, "EPYC-v4", 0x1, false, "4a27fa89b2ec0780b9ec489f86f203e29db4414ddd38f99e0734aea0da71577e91d474528cab0ecd6e65a3faf052306e"},
	})
}

// Debian's ovmf-amdsev 2026.08+ds-2, which the lock file names.
func TestPeerVectorsOnRealFirmware(t *testing.T) {
	const sum = "3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f"
	path := filepath.Join(os.Getenv("KATTEST_STACK"), "OVMF.fd")
	if os.Getenv("KATTEST_STACK") == "" {
		t.Skip("KATTEST_STACK names no boot stack, whose OVMF.fd is wanted")
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := sha256.Sum256(image); hex.EncodeToString(got[:]) != sum {
		t.Skipf("%s has SHA-256 %x, the vectors are for %s", path, got, sum)
	}
	fw := mustParse(t, image)
	if gpa, ok := fw.HashTable(); gpa != 0x810c00 || !ok {
		t.Errorf("hash table at %#x, %v, want 0x810c00", gpa, ok)
	}
	checkVectors(t, fw, []vector{
		{1, "EPYC-v4", 0x1, true, "da7e543d70e793e303422c0a65770594e2d44c92a3771a2e603b79eb4b663f88f8f7eb9c91f3d7f36ab4f978e6f8f5c4"},
		{4, "EPYC-v4", 0x1, true, "ba689fe30359795d42b5504200dd89bcaf906918296eb09557e796f6e24e703b923e2013c27ee9167e533134f40937ea"},
		{2, "EPYC-Milan-v2", 0x1, true, "df467af4cd90f9150b0c723bc8eb601924249a3f88c5fef80078f654398d5d77e035acf39ca6d255d7774992d58af841"},
		{2, "EPYC-Genoa-v1", 0x1, true, "8e8932ab221177052b6665495cee39ddf8bd6dd3c8466b601110437e5c42ef6f206527336a80c973c3a7ddea88f3f026"},
		{3, "EPYC-Rome-v3", 0x21, true, "58d42a5f05c886ea1404c7b4a4adf3f15722314c4f211275fa4c7392bb5bb1d8d71642a49683eaef38ae6f0538603001"},
		{2, "EPYC-Turin", 0x1, true, "7f306724ef14301abdd1f8aa1030ec1716f5e3a816f2f7828f76411e1199c17380980dddf8949abe5c98c22e5088a775"},
		{1, "EPYC-v4", 0x1, false, "d74bd3ea40b240c3228edc5177ce6193561ebff633dbd0be76d6c143b876d65102425c0e2e8a930857c48daa5eacda58"},
	})
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
