package measure

import "encoding/binary"

const (
	// vmsaGPA is the address that KVM gives every VMSA.
	// Source: Linux 6.12, arch/x86/kvm/svm/svm.h, INITIAL_VMSA_GPA.
	vmsaGPA = 0xfffffffff000
	// bspReset is where an x86 processor starts: CS base 0xffff0000, RIP 0xfff0.
	bspReset = 0xfffffff0
)

// segment is a segment register of the save area: selector, attributes, limit, base.
type segment struct {
	selector, attributes uint16
	limit                uint32
	base                 uint64
}

// vmsa returns the page that KVM measures for a vCPU that starts at eip.
// Fields that are not listed are zero.
//
//	offset  size  field      value
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
// Source: AMD 24593 rev 3.42 (APM volume 2), table B-4, for the layout; QEMU
// 10.0.2 and Linux 6.12 for the values (reset state, sev_es_sync_vmsa).
func vmsa(eip uint32, shape Shape) *[PageSize]byte {
	var b [PageSize]byte
	le := binary.LittleEndian
	data := segment{attributes: 0x93, limit: 0xffff}
	for offset, s := range map[int]segment{
		0x000: data,
		0x010: {selector: 0xf000, attributes: 0x9b, limit: 0xffff, base: uint64(eip & 0xffff0000)},
		0x020: data,
		0x030: data,
		0x040: data,
		0x050: data,
		0x060: {limit: 0xffff},
		0x070: {attributes: 0x82, limit: 0xffff},
		0x080: {limit: 0xffff},
		0x090: {attributes: 0x8b, limit: 0xffff},
	} {
		le.PutUint16(b[offset:], s.selector)
		le.PutUint16(b[offset+2:], s.attributes)
		le.PutUint32(b[offset+4:], s.limit)
		le.PutUint64(b[offset+8:], s.base)
	}
	for offset, value := range map[int]uint64{
		0x0d0: 0x1000,
		0x148: 0x40,
		0x158: 0x10,
		0x160: 0x400,
		0x168: 0xffff0ff0,
		0x170: 2,
		0x178: uint64(eip & 0xffff),
		0x268: 0x0007040600070406,
		0x310: uint64(shape.CPU.Signature),
		0x3b0: shape.GuestFeatures,
		0x3e8: 1,
	} {
		le.PutUint64(b[offset:], value)
	}
	le.PutUint32(b[0x408:], 0x1f80)
	le.PutUint16(b[0x410:], 0x37f)
	return &b
}
