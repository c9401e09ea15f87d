package measure

import (
	"fmt"
	"slices"
	"strings"
)

// CPU is a CPU model. Of it, the signature alone enters the digest: CPUID
// Fn0000_0001 EAX, which a processor holds in EDX at reset.
type CPU struct {
	Name      string // QEMU's name; empty where only the signature is known
	Signature uint32
}

// models are QEMU's models of AMD processors. A version changes features, never
// the signature. Source: QEMU 11.1.3, target/i386/cpu.c, builtin_x86_defs.
var models = []struct {
	name                    string
	family, model, stepping uint32
	versions                int
}{
	{"EPYC", 0x17, 0x01, 2, 5},
	{"EPYC-Rome", 0x17, 0x31, 0, 5},
	{"EPYC-Milan", 0x19, 0x01, 1, 4},
	{"EPYC-Genoa", 0x19, 0x11, 0, 3},
	{"EPYC-Turin", 0x1a, 0x00, 0, 2},
}

// ParseCPU reads a QEMU model's name, such as EPYC-v4 or EPYC-Milan. A name
// without a version is taken too: QEMU gives it the machine type's version, all
// of which have the same signature.
func ParseCPU(name string) (CPU, error) {
	for _, m := range models {
		names := []string{m.name}
		for v := 1; v <= m.versions; v++ {
			names = append(names, fmt.Sprintf("%s-v%d", m.name, v))
		}
		if m.name == "EPYC" {
			names = append(names, "EPYC-IBPB") // an old name of EPYC-v2
		}
		if slices.Contains(names, name) {
			return CPU{Name: name, Signature: signature(m.family, m.model, m.stepping)}, nil
		}
	}
	var known []string
	for _, m := range models {
		known = append(known, fmt.Sprintf("%s[-v1…-v%d]", m.name, m.versions))
	}
	return CPU{}, fmt.Errorf("unknown CPU model %q, want one of %s", name, strings.Join(known, ", "))
}

// SignatureCPU is the CPU of that signature, such as the host's with -cpu host.
func SignatureCPU(signature uint32) CPU { return CPU{Signature: signature} }

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
//	27:20  extended family: family − 15
//	19:16  extended model: model >> 4
//	11:8   base family, 15 for all of today's
//	7:4    base model
//	3:0    stepping
//
// Source: AMD 24594 rev 3.36 (APM volume 3), section E.3.2.
func signature(family, model, stepping uint32) uint32 {
	return (family-15)<<20 | model>>4<<16 | 15<<8 | model&15<<4 | stepping
}
