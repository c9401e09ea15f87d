package igvm

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"testing"

	"github.com/kraudcloud/kattest/measure"
)

// FuzzOpen: no panic; an error leaves no file, no image, no digest; what is
// accepted measures as a plain reading of the whole file says, and twice the same.
func FuzzOpen(f *testing.F) {
	for _, b := range []*builder{plain(), version2(), wide(), shared(), huge(), hugeData(), alsoSEVES(), late(), early(), two(), free()} {
		f.Add(b.build())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		if len(data) >= 24 { // past what no mutation finds
			le := binary.LittleEndian
			le.PutUint32(data[0x10:], uint32(len(data)))
			reseal(data)
		}
		file, err := open(data)
		if err != nil {
			if file != nil {
				t.Fatal("a file beside an error")
			}
			return
		}
		if file.Pages() > 2048 { // takes longer than it tells
			return
		}
		for _, l := range Loaders() {
			i, err := file.Load(l)
			if err != nil {
				if i != nil {
					t.Fatal("an image beside an error")
				}
				continue
			}
			vcpus := i.VCPUs()
			if l == QEMU {
				vcpus = measure.MaxVCPUs
			}
			d, err := i.Measure(vcpus, measure.SignatureCPU(1))
			if err != nil && d != (measure.Digest{}) {
				t.Fatal("a digest beside an error")
			}
			again, _ := mustLoad(t, data, l).Measure(vcpus, measure.SignatureCPU(1))
			if again != d {
				t.Fatalf("%v: %v, then %v", l, d, again)
			}
			if err == nil && l != QEMU {
				if want := plainly(data, l); d != want {
					t.Fatalf("%v: %v, want %v", l, d, want)
				}
			}
		}
	})
}

// plainly measures a file as the two tools do, which is known to be in form, with
// the whole of it at hand: the tools' sources once more, as simply as can be.
func plainly(file []byte, l Loader) measure.Digest {
	le := binary.LittleEndian
	var digest measure.Digest
	var mask, seves uint32
	areas := map[uint32]uint64{}
	extend := func(kind measure.PageType, gpa uint64, content []byte) {
		info := measure.PageInfo{Type: kind, GPA: gpa}
		if content != nil {
			info.Contents = sha512.Sum384(content)
		}
		digest = digest.Extend(info)
	}
	at := int(le.Uint32(file[8:]))
	for end := at + int(le.Uint32(file[12:])); at < end; at += 8 + (int(le.Uint32(file[at+4:]))+7)/8*8 {
		h := file[at+8:]
		ours := func() bool { return le.Uint32(h[8:])&mask != 0 }
		switch le.Uint32(file[at:]) {
		case 0x001:
			switch h[5] {
			case 2:
				mask = le.Uint32(h)
			case 5:
				seves = le.Uint32(h)
			}
		case 0x301:
			areas[le.Uint32(h[8:])] = le.Uint64(h)
		case 0x302:
			flags := le.Uint32(h[16:])
			if !ours() || l == OpenVMM && flags&4 != 0 {
				continue
			}
			n := uint64(1)
			if flags&1 != 0 && l == IGVMMeasure {
				n = 512
			}
			content := make([]byte, 4096)
			if offset := le.Uint32(h[12:]); offset != 0 {
				content = file[offset : offset+4096]
			}
			for i := range n {
				gpa := le.Uint64(h) + 4096*i
				switch {
				case h[20] == 1:
					extend(measure.PageSecrets, gpa, nil)
				case h[20] > 1:
					extend(measure.PageCPUID, gpa, nil)
				case flags&2 != 0:
					extend(measure.PageUnmeasured, gpa, nil)
				default:
					extend(measure.PageNormal, gpa, content)
				}
			}
		case 0x303:
			if !ours() {
				continue
			}
			size := areas[le.Uint32(h[12:])]
			if l == IGVMMeasure {
				size = 4096
			}
			for offset := uint64(0); offset < size; offset += 4096 {
				extend(measure.PageUnmeasured, le.Uint64(h)+offset, nil)
			}
		case 0x304:
			if ours() || l == IGVMMeasure && le.Uint32(h[8:])&seves != 0 {
				offset := le.Uint32(h[12:])
				extend(measure.PageVMSA, le.Uint64(h), file[offset:offset+4096])
			}
		}
	}
	return digest
}
