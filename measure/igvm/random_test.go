package igvm

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kraudcloud/kattest/measure"
)

// random is a file that igvmmeasure takes, made of whatever may stand in one.
func random(r *rand.Rand) *builder {
	b := &builder{version: 1 + r.Uint32N(2)}
	masks := []uint32{1, 2, 4}
	r.Shuffle(3, func(i, j int) { masks[i], masks[j] = masks[j], masks[i] })
	b.platform(masks[0], 2).platform(masks[1], 1).platform(masks[2], 5)
	b.add(0x101, uint64(0x30000), masks[0], uint32(0))
	area := uint32(0)
	vp := map[uint32]uint16{}
	for range 1 + r.IntN(30) {
		mask := 1 + r.Uint32N(7)
		gpa := uint64(r.Uint32N(1<<20)) * measure.PageSize
		switch r.IntN(8) {
		case 0:
			b.area(area, uint64(1+r.IntN(3))*measure.PageSize).parameter(0x307, area, 0).insert(mask, gpa, area)
			area++
		case 1:
			b.required(mask, gpa, measure.PageSize)
		case 2:
			context := masks[2*r.IntN(2)] // SEV-SNP's or SEV-ES's
			b.context(context, gpa, vp[context], vmsa(put(0x178, 8, r.Uint64())))
			vp[context]++
		case 3:
			b.page(mask, gpa, r.Uint32N(8), uint16(r.UintN(4)), nil) // of zeros, 2 MiB at times
			h := &b.headers[len(b.headers)-1]
			if h.body[16]&1 != 0 {
				put(0, 8, gpa&^(hugePage-1))(h.body)
			}
		default:
			b.page(mask, gpa, 2*r.Uint32N(4), uint16(r.UintN(4)), bytes.Repeat([]byte{byte(r.IntN(4))}, measure.PageSize))
		}
	}
	return b.data(masks[1], 0, 7) // a file has data
}

// The tool itself, built from coconut-svsm/svsm, says the same of random files.
func TestAgainstIGVMMeasure(t *testing.T) {
	tool := os.Getenv("KATTEST_IGVMMEASURE")
	if tool == "" {
		t.Skip("KATTEST_IGVMMEASURE names no executable of Coconut's igvmmeasure")
	}
	name := filepath.Join(t.TempDir(), "file")
	for seed := range uint64(500) {
		file := random(rand.New(rand.NewPCG(seed, 0))).build()
		if err := os.WriteFile(name, file, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(tool, name, "measure", "--bare").CombinedOutput()
		if err != nil {
			t.Fatalf("seed %d: %v: %s", seed, err, out)
		}
		i := mustLoad(t, file, IGVMMeasure)
		d, err := i.Measure(i.VCPUs(), measure.CPU{})
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.ToLower(strings.TrimSpace(string(out))); d.String() != want {
			t.Errorf("seed %d: %v, igvmmeasure says %s", seed, d, want)
		}
	}
}
