package igvm

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/kraudcloud/kattest/measure"
)

// builder writes IGVM files, as microsoft/igvm's IgvmFile::serialize does: file
// data in the headers' order, and the same data once. It shares no code with the
// parser.
type builder struct {
	version uint32
	headers []builtHeader
}

// builtHeader is a header, and the data that it refers to at an offset of its
// content, if it does.
type builtHeader struct {
	kind   uint32
	body   []byte
	data   []byte
	dataAt int
}

func (b *builder) add(kind uint32, fields ...any) *builder {
	var body bytes.Buffer
	for _, f := range fields {
		if err := binary.Write(&body, binary.LittleEndian, f); err != nil {
			panic(err)
		}
	}
	b.headers = append(b.headers, builtHeader{kind: kind, body: body.Bytes()})
	return b
}

func (b *builder) withData(at int, data []byte) *builder {
	last := &b.headers[len(b.headers)-1]
	last.data, last.dataAt = data, at
	return b
}

func (b *builder) platform(mask uint32, platform uint8) *builder {
	return b.add(0x001, mask, uint8(0), platform, uint16(1), uint64(0))
}

func (b *builder) policy(mask uint32, policy uint64) *builder {
	return b.add(0x101, policy, mask, uint32(0))
}

func (b *builder) page(mask uint32, gpa uint64, flags uint32, data uint16, content []byte) *builder {
	b.add(0x302, gpa, mask, uint32(0), flags, data, uint16(0))
	return b.withData(12, content)
}

// data adds a normal page that is filled with a byte.
func (b *builder) data(mask uint32, gpa uint64, fill byte) *builder {
	return b.page(mask, gpa, 0, 0, bytes.Repeat([]byte{fill}, 4096))
}

func (b *builder) area(index uint32, size uint64) *builder {
	return b.add(0x301, size, index, uint32(0))
}

func (b *builder) parameter(kind, index, offset uint32) *builder {
	return b.add(kind, index, offset)
}

func (b *builder) insert(mask uint32, gpa uint64, index uint32) *builder {
	return b.add(0x303, gpa, mask, index)
}

func (b *builder) required(mask uint32, gpa uint64, size uint32) *builder {
	return b.add(0x305, gpa, mask, size, uint32(0), uint32(0))
}

func (b *builder) context(mask uint32, gpa uint64, vp uint16, vmsa []byte) *builder {
	b.add(0x304, gpa, mask, uint32(0), vp, uint16(0))
	return b.withData(12, vmsa)
}

func (b *builder) build() []byte {
	fixed := 24
	if b.version == 2 {
		fixed = 32
	}
	size := 0
	for _, h := range b.headers {
		size += 8 + (len(h.body)+7)/8*8
	}
	var headers, data []byte
	seen := map[string]int{}
	for _, h := range b.headers {
		body := bytes.Clone(h.body)
		if len(h.data) > 0 {
			offset, ok := seen[string(h.data)]
			if !ok {
				offset = fixed + size + len(data)
				seen[string(h.data)] = offset
				data = append(data, h.data...)
			}
			binary.LittleEndian.PutUint32(body[h.dataAt:], uint32(offset))
		}
		headers = binary.LittleEndian.AppendUint32(headers, h.kind)
		headers = binary.LittleEndian.AppendUint32(headers, uint32(len(body)))
		headers = append(headers, body...)
		headers = append(headers, make([]byte, (8-len(body)%8)%8)...)
	}
	head := make([]byte, fixed)
	copy(head, "IGVM")
	for i, v := range []uint32{b.version, uint32(fixed), uint32(size), uint32(fixed + size + len(data))} {
		binary.LittleEndian.PutUint32(head[4+4*i:], v)
	}
	if b.version == 2 {
		binary.LittleEndian.PutUint32(head[0x1c:], 4096)
	}
	file := append(append(head, headers...), data...)
	reseal(file)
	return file
}

// reseal puts the checksum right.
func reseal(file []byte) {
	le := binary.LittleEndian
	end := int64(le.Uint32(file[0x08:])) + int64(le.Uint32(file[0x0c:]))
	if end > int64(len(file)) {
		return
	}
	le.PutUint32(file[0x14:], 0)
	le.PutUint32(file[0x14:], crc32.ChecksumIEEE(file[:end]))
}

// vmsa is the state that Coconut's igvmbuilder gives a vCPU under QEMU, 32-bit
// protected mode; but for MXCSR and X87_FCW, which it leaves zero.
func vmsa(change ...func([]byte)) []byte {
	b := make([]byte, 4096)
	le := binary.LittleEndian
	segment := func(at int, selector, attributes uint16) {
		le.PutUint16(b[at:], selector)
		le.PutUint16(b[at+2:], attributes)
		le.PutUint32(b[at+4:], 0xffffffff)
	}
	for _, at := range []int{0x00, 0x20, 0x30, 0x40, 0x50} {
		segment(at, 0x10, 0xa93)
	}
	segment(0x10, 0x08, 0xc9b)
	le.PutUint64(b[0x0d0:], 0x1800)
	le.PutUint64(b[0x148:], 0x60)
	le.PutUint64(b[0x150:], 0x8000)
	le.PutUint64(b[0x158:], 0x31)
	le.PutUint64(b[0x170:], 2)
	le.PutUint64(b[0x178:], 0x10002)
	le.PutUint64(b[0x1d8:], 0x7ff8)
	le.PutUint64(b[0x1f8:], 1)
	le.PutUint64(b[0x268:], 0x0007040600070406)
	le.PutUint64(b[0x3b0:], 0x29)
	le.PutUint64(b[0x3e8:], 1)
	le.PutUint32(b[0x408:], 0x1f80)
	le.PutUint16(b[0x410:], 0x37f)
	for _, c := range change {
		c(b)
	}
	return b
}

func mustOpen(t testing.TB, file []byte) *File {
	t.Helper()
	f, err := Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustLoad(t testing.TB, file []byte, l Loader) *Image {
	t.Helper()
	i, err := mustOpen(t, file).Load(l)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func cpu(t testing.TB) measure.CPU {
	t.Helper()
	c, err := measure.ParseCPU("EPYC-v4")
	if err != nil {
		t.Fatal(err)
	}
	return c
}
