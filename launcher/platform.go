package launcher

import "fmt"

// Platform says what a guest is launched on. See docs/platforms.md.
type Platform int

// The platforms. The zero value is neither.
const (
	_   Platform = iota
	SNP          // SEV-SNP under KVM: the processor measures, signs and encrypts
	Sim          // the same boot stack without SEV, beside a simulated PSP: proves nothing
)

// ParsePlatform reads "snp" or "sim".
func ParsePlatform(name string) (Platform, error) {
	for _, p := range []Platform{SNP, Sim} {
		if p.String() == name {
			return p, nil
		}
	}
	return 0, fmt.Errorf("unknown platform %q, want snp or sim", name)
}

func (p Platform) String() string {
	switch p {
	case SNP:
		return "snp"
	case Sim:
		return "sim"
	default:
		return fmt.Sprintf("platform %d", int(p))
	}
}

// Accel is how QEMU runs the guest's instructions on the simulated platform.
// On SNP it is always KVM.
type Accel int

// The accelerators. The zero value is neither.
const (
	_   Accel = iota
	KVM       // in hardware
	TCG       // in software, several times slower
)

func (a Accel) String() string {
	switch a {
	case KVM:
		return "kvm"
	case TCG:
		return "tcg"
	default:
		return fmt.Sprintf("accelerator %d", int(a))
	}
}

// ParseAccel reads "kvm" or "tcg".
func ParseAccel(name string) (Accel, error) {
	for _, a := range []Accel{KVM, TCG} {
		if a.String() == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown accelerator %q, want kvm or tcg", name)
}
