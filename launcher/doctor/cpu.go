package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Registers are EAX, EBX, ECX and EDX. As text they are four numbers, such as
// "0x1f 0x4173 0x1fd 0x64".
type Registers [4]uint32

func (r Registers) String() string {
	return fmt.Sprintf("%#x %#x %#x %#x", r[0], r[1], r[2], r[3])
}

// MarshalText returns what String does.
func (r Registers) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what String writes.
func (r *Registers) UnmarshalText(text []byte) error {
	var parsed Registers
	_, err := fmt.Sscanf(string(text), "%v %v %v %v", &parsed[0], &parsed[1], &parsed[2], &parsed[3])
	if err != nil || parsed.String() != string(text) {
		return fmt.Errorf("%.60q is not four numbers such as 0x1f", text)
	}
	*r = parsed
	return nil
}

// Leaves of CPUID.
// Source: AMD 24594 (APM vol. 3), appendix E.
const (
	leafVendor     = 0          // EBX, EDX, ECX: the vendor
	leafHighest    = 0x80000000 // EAX: the highest extended leaf
	leafSignature  = 0x80000001 // EAX: family, model, stepping
	leafBrand      = 0x80000002 // to 0x80000004: 48 characters
	leafEncryption = 0x8000001f // memory encryption
)

const fixCPU = "SEV-SNP needs an AMD EPYC 7003 (Milan), 8004 or 9004 (Genoa, Siena, Bergamo), 9005 (Turin) or later"

var errNotAMD = errors.New("the processor is not AMD's")

// encryption returns CPUID 0x8000001F. Beyond the highest leaf a processor
// answers at random.
func encryption(h Host) (Registers, error) {
	vendor, err := h.CPUID(leafVendor)
	if err != nil {
		return Registers{}, err
	}
	if name := chars(vendor[1], vendor[3], vendor[2]); name != "AuthenticAMD" {
		return Registers{}, fmt.Errorf("%w: %q", errNotAMD, name)
	}
	highest, err := h.CPUID(leafHighest)
	if err != nil {
		return Registers{}, err
	}
	if highest[0] < leafEncryption {
		return Registers{}, fmt.Errorf("the processor has no memory encryption (CPUID %#x)", uint32(leafEncryption))
	}
	return h.CPUID(leafEncryption)
}

// CBitPos returns CPUID 0x8000001F EBX[5:0], the position of the C-bit in a page
// table entry, or an error where the processor is not AMD's or has no SEV-SNP.
func CBitPos(h Host) (int, error) {
	r, err := encryption(h)
	if err != nil {
		return 0, fmt.Errorf("reading CPUID: %w", err)
	}
	if r[0]&(1<<4) == 0 {
		return 0, errors.New("the processor has no SEV-SNP (CPUID 0x8000001f EAX bit 4)")
	}
	return int(r[1] & 0x3f), nil
}

func chars(registers ...uint32) string {
	var b []byte
	for _, r := range registers {
		b = binary.LittleEndian.AppendUint32(b, r)
	}
	return strings.TrimSpace(strings.TrimRight(string(b), "\x00"))
}

// generation names the EPYC of a family and model, empty where it is none that
// is known to have SEV-SNP.
// Source: AMD 57230 (VCEK and KDS), table of products; Linux 6.12,
// arch/x86/kernel/cpu/amd.c.
func generation(family, model uint32) string {
	switch {
	case family == 0x19 && model <= 0x0f:
		return "Milan"
	case family == 0x19 && model >= 0x10 && model <= 0x1f:
		return "Genoa"
	case family == 0x19 && model >= 0xa0 && model <= 0xaf:
		return "Bergamo or Siena"
	case family == 0x1a && model <= 0x1f:
		return "Turin"
	}
	return ""
}

func (e exam) signature() (family, model uint32, err error) {
	r, err := e.host.CPUID(leafSignature)
	if err != nil {
		return 0, 0, err
	}
	eax := r[0]
	return eax>>8&0xf + eax>>20&0xff, eax>>4&0xf | eax>>12&0xf0, nil
}

func (e exam) brand() (string, error) {
	var all []uint32
	for leaf := uint32(leafBrand); leaf < leafBrand+3; leaf++ {
		r, err := e.host.CPUID(leaf)
		if err != nil {
			return "", err
		}
		all = append(all, r[:]...)
	}
	return chars(all...), nil
}

func (e exam) cpu() finding {
	brand, err := e.brand()
	if err != nil {
		return fail(fixCPU, "%v", err)
	}
	if _, err := encryption(e.host); errors.Is(err, errNotAMD) {
		return fail(fixCPU, "%s (%v)", brand, err)
	}
	family, model, err := e.signature()
	if err != nil {
		return unknown(fixCPU, err)
	}
	name := generation(family, model)
	if name == "" {
		return warn(fixCPU, "%s (family %#x, model %#x: no generation that is known to have SEV-SNP)", brand, family, model)
	}
	return pass("%s (%s, family %#x, model %#x)", brand, name, family, model)
}

// cpuBit checks a bit of CPUID 0x8000001F EAX.
func cpuBit(bit int, name string) func(exam) finding {
	return func(e exam) finding {
		r, err := encryption(e.host)
		if err != nil {
			return noEncryption(err)
		}
		const fix = fixCPU + "; on one of these, enable SMEE and 'SEV-SNP Support' in the BIOS"
		return passIf(r[0]>>bit&1 == 1, fix, "%s: CPUID %#x EAX bit %d is %d", name, uint32(leafEncryption), bit, r[0]>>bit&1)
	}
}

func noEncryption(err error) finding {
	if errors.Is(err, errNotAMD) {
		return skip("cpu")
	}
	return fail(fixCPU, "%v", err)
}

func (e exam) vmpl() finding {
	r, err := encryption(e.host)
	if err != nil {
		return skip("cpu.sev-snp")
	}
	if r[0]>>5&1 == 0 {
		return warn("a guest at VMPL 0 alone, as launched here, needs none; an SVSM does", "no VM permission levels: CPUID %#x EAX bit 5 is 0", uint32(leafEncryption))
	}
	return pass("%d levels", r[1]>>12&0xf)
}

func (e exam) cbit() finding {
	r, err := encryption(e.host)
	if err != nil || r[0]>>4&1 == 0 {
		return skip("cpu.sev-snp")
	}
	return passIf(r[1]&0x3f >= 32, fixCPU, "bit %d; physical addresses are %d bits shorter", r[1]&0x3f, r[1]>>6&0x3f)
}

// asids counts SEV-ES and SNP guests: their ASIDs are 1 to EDX-1.
func (e exam) asids() finding {
	const fix = "set 'SEV-ES ASID Space Limit' in the BIOS (CBS, CPU options) to 2 or more: SEV-SNP guests get the ASIDs below it"
	r, err := encryption(e.host)
	if err != nil || r[0]>>4&1 == 0 {
		return skip("cpu.sev-snp")
	}
	if r[3] < 2 {
		return fail(fix, "none of %d for SEV-SNP guests: the lowest ASID without SEV-ES is %d", r[2], r[3])
	}
	return pass("%d for SEV-SNP guests, of %d", min(r[3]-1, r[2]), r[2])
}
