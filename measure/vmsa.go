package measure

import "encoding/binary"

// bspReset is where an x86 processor starts: CS base 0xffff0000, RIP 0xfff0.
const bspReset = 0xfffffff0

// segment is a segment register of the save area: selector, attributes, limit, base.
type segment struct {
	selector, attributes uint16
	limit                uint32
	base                 uint64
}

func (s segment) put(b []byte) {
	binary.LittleEndian.PutUint16(b[0:], s.selector)
	binary.LittleEndian.PutUint16(b[2:], s.attributes)
	binary.LittleEndian.PutUint32(b[4:], s.limit)
	binary.LittleEndian.PutUint64(b[8:], s.base)
}

// ResetVMSA returns the page that is measured for a vCPU that starts at eip: the
// first at 0xfffffff0, the others at the firmware's reset vector. Of the shape,
// the VMM, the CPU and the guest features count. Fields that are not listed are
// zero.
//
//	offset  size  field      value under QEMU
//	0x000   16    ES         0, 0x93, 0xffff, 0
//	0x010   16    CS         0xf000, 0x9b, 0xffff, eip with its low 16 bits clear
//	0x020   16    SS         as ES
//	0x030   16    DS         as ES
//	0x040   16    FS         as ES
//	0x050   16    GS         as ES
//	0x060   16    GDTR       0, 0, 0xffff, 0
//	0x070   16    LDTR       0, 0x82, 0xffff, 0
//	0x080   16    IDTR       0, 0, 0xffff, 0
//	0x090   16    TR         0, 0x8b, 0xffff, 0
//	0x0d0   8     EFER       0x1000, SVME
//	0x148   8     CR4        0x40, MCE
//	0x158   8     CR0        0x10, ET
//	0x160   8     DR7        0x400
//	0x168   8     DR6        0xffff0ff0
//	0x170   8     RFLAGS     2
//	0x178   8     RIP        low 16 bits of eip
//	0x268   8     G_PAT      0x0007040600070406
//	0x310   8     RDX        the CPU's signature
//	0x3b0   8     SEV_FEATURES
//	0x3e8   8     XCR0       1
//	0x408   4     MXCSR      0x1f80
//	0x410   2     X87_FCW    0x37f
//
// An SVSM's vCPUs start in 32-bit protected mode instead: ES, SS, DS and FS 0x10,
// 0xc93, CS 8, 0xc9b, all of base 0 and limit 0xffffffff; CR0 0x11; RIP eip.
//
// Source: AMD 24593 rev 3.42 (APM volume 2), table B-4, for the layout; QEMU
// 10.0.2 and Linux 6.12 for the values (reset state, sev_es_sync_vmsa); for the
// other VMMs' the profile's.
func ResetVMSA(eip uint32, shape Shape) *[PageSize]byte {
	var p profile
	if shape.VMM.known() {
		p = catalogue[shape.VMM]
	}
	data := segment{attributes: 0x93, limit: 0xffff}
	stack := segment{attributes: p.ss, limit: 0xffff}
	code := segment{selector: 0xf000, attributes: p.apCS, limit: 0xffff, base: uint64(eip & 0xffff0000)}
	if eip == bspReset {
		code.attributes = p.bspCS
	}
	gs := data
	cr0, rip := uint64(0x10), uint64(eip&0xffff)
	if p.svsm {
		data = segment{selector: 0x10, attributes: 0xc93, limit: 0xffffffff}
		stack = data
		code = segment{selector: 8, attributes: 0xc9b, limit: 0xffffffff}
		cr0, rip = 0x11, uint64(eip)
	}
	rdx := uint64(shape.CPU.Signature)
	if p.fixedRDX {
		rdx = p.rdx
	}

	var b [PageSize]byte
	for i, s := range [...]segment{
		data, code, stack, data, data, gs,
		{limit: 0xffff},                   // GDTR
		{attributes: 0x82, limit: 0xffff}, // LDTR
		{limit: 0xffff},                   // IDTR
		{attributes: p.tr, limit: 0xffff},
	} {
		s.put(b[16*i:])
	}
	le := binary.LittleEndian
	le.PutUint64(b[0x0d0:], 0x1000)
	le.PutUint64(b[0x148:], 0x40)
	le.PutUint64(b[0x158:], cr0)
	le.PutUint64(b[0x160:], 0x400)
	le.PutUint64(b[0x168:], 0xffff0ff0)
	le.PutUint64(b[0x170:], 2)
	le.PutUint64(b[0x178:], rip)
	le.PutUint64(b[0x268:], p.pat)
	le.PutUint64(b[0x310:], rdx)
	le.PutUint64(b[0x3b0:], shape.GuestFeatures)
	le.PutUint64(b[0x3e8:], 1)
	if p.fpu {
		le.PutUint32(b[0x408:], 0x1f80)
		le.PutUint16(b[0x410:], 0x37f)
	}
	return &b
}
