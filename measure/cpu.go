package measure

import (
	"fmt"
	"strconv"
	"strings"
)

// CPU is a CPU model. Of it, the signature alone enters the digest: CPUID
// Fn0000_0001 EAX, which a processor holds in EDX at reset.
type CPU struct {
	Name      string // QEMU's name; empty where only the signature is known
	Signature uint32
}

// models are QEMU's models that an AMD host may be asked for. A version changes
// features, never the signature.
// Source: QEMU 11.1.3, target/i386/cpu.c, builtin_x86_defs.
var models = []struct {
	name                    string
	family, model, stepping uint32
	versions                int
	alias                   string // an old name of one of the versions
}{
	{"EPYC", 0x17, 0x01, 2, 5, "EPYC-IBPB"},
	{"EPYC-Rome", 0x17, 0x31, 0, 5, ""},
	{"EPYC-Milan", 0x19, 0x01, 1, 4, ""},
	{"EPYC-Genoa", 0x19, 0x11, 0, 3, ""},
	{"EPYC-Turin", 0x1a, 0x00, 0, 2, ""},
	{"Dhyana", 0x18, 0x00, 1, 2, ""},
	{"qemu64", 0x0f, 0x6b, 1, 1, ""},
	{"kvm64", 0x0f, 0x06, 1, 1, ""},
}

// CPUs are QEMU's models by all their names, those of one signature together. A
// name without a version is one: QEMU gives it the machine type's version.
func CPUs() []CPU {
	var all []CPU
	for _, m := range models {
		sig := signature(m.family, m.model, m.stepping)
		all = append(all, CPU{m.name, sig})
		if m.alias != "" {
			all = append(all, CPU{m.alias, sig})
		}
		for v := 1; v <= m.versions; v++ {
			all = append(all, CPU{fmt.Sprintf("%s-v%d", m.name, v), sig})
		}
	}
	return all
}

// ParseCPU reads a QEMU model's name, such as EPYC-v4 or EPYC-Milan. The error is
// an *UnknownError.
func ParseCPU(name string) (CPU, error) {
	all := CPUs()
	var names []string
	for _, c := range all {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return CPU{}, newUnknownError("CPU model", name, names)
}

// SignatureCPU is the CPU of that signature, such as the host's with -cpu host.
func SignatureCPU(signature uint32) CPU { return CPU{Signature: signature} }

// ParseFMS reads FAMILY/MODEL/STEPPING, decimal or with 0x, as -cpu's family=,
// model= and stepping= set them: 0 to 270, 0 to 255 and 0 to 15.
func ParseFMS(s string) (CPU, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return CPU{}, fmt.Errorf("%.80q is not FAMILY/MODEL/STEPPING", s)
	}
	var fms [3]uint32
	for i, limit := range []struct {
		name string
		max  uint64
	}{{"family", 0x10e}, {"model", 0xff}, {"stepping", 0xf}} {
		n, err := strconv.ParseUint(parts[i], 0, 32)
		if err != nil || n > limit.max {
			return CPU{}, fmt.Errorf("%s: %.80q is not a number from 0 to %d", limit.name, parts[i], limit.max)
		}
		fms[i] = uint32(n)
	}
	return SignatureCPU(signature(fms[0], fms[1], fms[2])), nil
}

// String returns the name, or the signature where there is none.
func (c CPU) String() string {
	if c.Name != "" {
		return c.Name
	}
	return fmt.Sprintf("%#x", c.Signature)
}

// signature encodes CPUID Fn0000_0001 EAX.
//
//	bits   field
//	27:20  extended family: what of the family is above 15
//	19:16  extended model: model >> 4
//	11:8   base family: the family, up to 15
//	7:4    base model
//	3:0    stepping
//
// Source: AMD 24594 rev 3.36 (APM volume 3), section E.3.2; QEMU 10.0.2,
// target/i386/cpu.c, x86_cpuid_version_set_family.
func signature(family, model, stepping uint32) uint32 {
	base := min(family, 15)
	return (family-base)<<20 | model>>4<<16 | base<<8 | model&15<<4 | stepping
}
