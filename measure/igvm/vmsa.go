package igvm

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kraudcloud/kattest/measure"
)

const (
	// vmsaGPA is where KVM says that every VMSA stands.
	// Source: Linux 6.12, arch/x86/kvm/svm/sev.c, INITIAL_VMSA_GPA.
	vmsaGPA = 0xffff_ffff_f000
	// resetVector is where an x86 processor starts.
	resetVector = 0xffff_fff0
	// saveAreaSize is the size of the save area of SEV-ES in bytes, the part of a
	// VMSA that KVM knows.
	saveAreaSize = 1648
)

// Offsets in a VMSA, besides the registers that QEMU passes on as they are.
// Source: AMD 24593 rev 3.42 (APM volume 2), table B-4.
const (
	offsetES       = 0x000 // then CS, SS, DS, FS, GS, of 16 bytes each
	offsetSS       = 0x020
	offsetCS       = 0x010
	offsetGDTR     = 0x060
	offsetLDTR     = 0x070
	offsetIDTR     = 0x080
	offsetTR       = 0x090
	offsetCPL      = 0x0cb
	offsetEFER     = 0x0d0
	offsetCR4      = 0x148
	offsetCR0      = 0x158
	offsetDR7      = 0x160
	offsetDR6      = 0x168
	offsetRFLAGS   = 0x170
	offsetFeatures = 0x3b0
	offsetXCR0     = 0x3e8
	offsetMXCSR    = 0x408
	offsetFCW      = 0x410
)

// Bits of registers. Source: AMD 24593 rev 3.42, chapters 3 and 13.
const (
	cr0ET = 1 << 4
	cr0NW = 1 << 29
	cr0CD = 1 << 30
	cr0PG = 1 << 31

	cr4PAE = 1 << 5
	cr4MCE = 1 << 6

	eferLME  = 1 << 8
	eferLMA  = 1 << 10
	eferSVME = 1 << 12

	rflagsOne = 1 << 1
	rflagsVM  = 1 << 17
	dr7One    = 1 << 10
	xcr0X87   = 1 << 0

	resetMXCSR = 0x1f80
	resetFCW   = 0x37f

	attributes = 0x0fff // of a segment; the others are not
	segmentL   = 1 << 9
)

// taken are the fields that QEMU takes from a context: offset and size. All else
// must be zero.
// Source: QEMU target/i386/sev.c, check_vmsa_supported.
func taken() [][2]int {
	return [][2]int{
		{offsetES, 10 * 16},
		{offsetEFER, 8},
		{offsetCR4, 6 * 8}, // CR4, CR3, CR0, DR7, DR6, RFLAGS
		{0x178, 8},         // RIP
		{0x1d8, 8},
		{0x1f8, 8},      // RSP, RAX
		{0x268, 8},      // G_PAT
		{0x308, 3 * 8},  // RCX, RDX, RBX
		{0x328, 11 * 8}, // RBP, RSI, RDI, R8 to R15
		{offsetFeatures, 8},
		{offsetXCR0, 8},
		{offsetMXCSR, 4},
		{offsetFCW, 2},
	}
}

// saveArea is a VMSA.
type saveArea []byte

func (s saveArea) u16(at int) uint16      { return binary.LittleEndian.Uint16(s[at:]) }
func (s saveArea) u64(at int) uint64      { return binary.LittleEndian.Uint64(s[at:]) }
func (s saveArea) put16(at int, v uint16) { binary.LittleEndian.PutUint16(s[at:], v) }
func (s saveArea) put32(at int, v uint32) { binary.LittleEndian.PutUint32(s[at:], v) }
func (s saveArea) put64(at int, v uint64) { binary.LittleEndian.PutUint64(s[at:], v) }

// measuredVMSA returns SHA-384 of the VMSA that KVM makes of a context of the
// file, and what it changes.
func measuredVMSA(gpa uint64, context *[measure.PageSize]byte, features uint64) (measure.Digest, []string, error) {
	if err := checkVMSA(gpa, context[:]); err != nil {
		return measure.Digest{}, nil, err
	}
	made := *context
	pass(made[:], features)
	return sha512Page(&made), changes(context[:], made[:]), nil
}

func sha512Page(page *[measure.PageSize]byte) measure.Digest { return sha512.Sum384(page[:]) }

// checkVMSA refuses what QEMU or KVM refuses of a context.
// Source: QEMU target/i386/sev.c, check_vmsa_supported, check_sev_features; Linux
// 6.12, arch/x86/kvm/x86.c, kvm_is_valid_sregs, and svm/sev.c, sev_es_sync_vmsa.
func checkVMSA(gpa uint64, s saveArea) error {
	if gpa != vmsaGPA {
		return fmt.Errorf("GPA %#x, want %#x, where KVM puts every VMSA", gpa, uint64(vmsaGPA))
	}
	rest := append([]byte(nil), s[:saveAreaSize]...)
	for _, field := range taken() {
		clear(rest[field[0] : field[0]+field[1]])
	}
	for at, b := range rest {
		if b != 0 {
			return fmt.Errorf("the VMSA's byte %#x is %#x: it is of a field that QEMU does not pass on, and must be zero", at, b)
		}
	}
	features := s.u64(offsetFeatures)
	if features&measure.SNPActive == 0 {
		return fmt.Errorf("SEV_FEATURES %#x has SNPActive (bit 0) clear", features)
	}
	if unknown := features &^ measure.KnownFeatures; unknown != 0 {
		return fmt.Errorf("SEV_FEATURES %#x has unknown bits %#x", features, unknown)
	}
	return checkRegisters(s)
}

// checkRegisters refuses a state that KVM does not take.
func checkRegisters(s saveArea) error {
	cr0, cr4, efer := s.u64(offsetCR0), s.u64(offsetCR4), s.u64(offsetEFER)
	long := efer&eferLME != 0 && cr0&cr0PG != 0
	switch {
	case cr0>>32 != 0 || cr4>>32 != 0:
		return fmt.Errorf("CR0 %#x or CR4 %#x is beyond 32 bits", cr0, cr4)
	case long && cr4&cr4PAE == 0:
		return errors.New("CR0.PG and EFER.LME are set, and CR4.PAE is clear")
	case !long && efer&eferLMA != 0:
		return errors.New("EFER.LMA is set without CR0.PG and EFER.LME")
	case !long && s.u16(offsetCS+2)&segmentL != 0:
		return errors.New("CS is of 64 bits without CR0.PG and EFER.LME")
	case s.u64(offsetDR7)&^dr7One != 0:
		return fmt.Errorf("DR7 %#x has breakpoints enabled", s.u64(offsetDR7))
	case s.u64(offsetDR6)>>32 != 0:
		return fmt.Errorf("DR6 %#x is beyond 32 bits", s.u64(offsetDR6))
	case s.u64(offsetRFLAGS)&rflagsVM != 0:
		return errors.New("RFLAGS.VM is set")
	case s.u64(offsetXCR0)&xcr0X87 == 0:
		return fmt.Errorf("XCR0 %#x has bit 0 clear", s.u64(offsetXCR0))
	}
	return nil
}

// pass makes of a context the VMSA that results from it, when QEMU has given the
// registers to KVM and KVM has made a VMSA of them.
//
// Source: QEMU target/i386/sev.c, sev_apply_cpu_context, and helper.c; Linux
// 6.12, arch/x86/kvm/svm/svm.c, svm_set_segment, svm_set_gdt, svm_set_idt,
// svm_set_efer, svm_set_cr0, svm_set_cr4, and svm/sev.c, sev_es_sync_vmsa;
// kernel/fpu/xstate.c, copy_uabi_to_xstate.
func pass(s saveArea, features uint64) {
	le := binary.LittleEndian
	// Attributes have 12 bits; the base of TR is given as LDTR's.
	for _, at := range []int{0x00, 0x10, 0x20, 0x30, 0x40, 0x50, offsetLDTR, offsetTR} {
		s.put16(at+2, s.u16(at+2)&attributes)
	}
	s.put64(offsetTR+8, s.u64(offsetLDTR+8))
	// Descriptor tables have a limit of 16 bits, and a base.
	for _, at := range []int{offsetGDTR, offsetIDTR} {
		s.put64(at, uint64(le.Uint16(s[at+4:]))<<32)
	}
	// CPL is the stack segment's DPL.
	s[offsetCPL] = byte(s.u16(offsetSS+2) >> 5 & 3)
	cr0 := s.u64(offsetCR0)
	efer := s.u64(offsetEFER) | eferSVME
	if efer&eferLME != 0 && cr0&cr0PG != 0 {
		efer |= eferLMA
	}
	s.put64(offsetEFER, efer)
	s.put64(offsetCR0, (cr0|cr0ET)&^(cr0CD|cr0NW))
	s.put64(offsetCR4, s.u64(offsetCR4)|cr4MCE)
	s.put64(offsetRFLAGS, s.u64(offsetRFLAGS)|rflagsOne)
	s.put64(offsetFeatures, features)
	// QEMU sets MXCSR and X87_FCW, but says in XSTATE_BV, as at reset, that the FPU
	// is in its initial state: KVM keeps its own, which has the values at reset.
	s.put32(offsetMXCSR, resetMXCSR)
	s.put16(offsetFCW, resetFCW)
	clear(s[saveAreaSize:])
}

// changes says what differs between a context and the VMSA made of it.
func changes(context, made saveArea) []string {
	var all []string
	for _, f := range []struct {
		name string
		at   int
		size int
	}{
		{"ES", 0x00, 16},
		{"CS", 0x10, 16},
		{"SS", 0x20, 16},
		{"DS", 0x30, 16},
		{"FS", 0x40, 16},
		{"GS", 0x50, 16},
		{"GDTR", offsetGDTR, 16},
		{"LDTR", offsetLDTR, 16},
		{"IDTR", offsetIDTR, 16},
		{"TR", offsetTR, 16},
		{"CPL", offsetCPL, 1},
		{"EFER", offsetEFER, 8},
		{"CR4", offsetCR4, 8},
		{"CR0", offsetCR0, 8},
		{"RFLAGS", offsetRFLAGS, 8},
		{"SEV_FEATURES", offsetFeatures, 8},
		{"MXCSR", offsetMXCSR, 4},
		{"X87_FCW", offsetFCW, 2},
	} {
		a, b := context[f.at:f.at+f.size], made[f.at:f.at+f.size]
		switch {
		case string(a) == string(b):
		case f.size == 8:
			all = append(all, fmt.Sprintf("%s is %#x in the file and %#x in the guest", f.name, context.u64(f.at), made.u64(f.at)))
		default:
			all = append(all, fmt.Sprintf("%s is %x in the file and %x in the guest", f.name, a, b))
		}
	}
	if string(context[saveAreaSize:]) != string(made[saveAreaSize:]) {
		all = append(all, fmt.Sprintf("what stands behind byte %#x in the file is zero in the guest", saveAreaSize))
	}
	return all
}
