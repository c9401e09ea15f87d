package igvm

import (
	"fmt"
	"strings"
)

// Loader is who makes a guest of a file, or says what it would measure as. The
// zero value is none.
type Loader uint8

// The loaders.
const (
	_ Loader = iota
	// QEMU is QEMU 10.1 and later with KVM of Linux 6.11 and later: the digest is
	// that of the report.
	// Source: QEMU backends/igvm.c and target/i386/sev.c, as of 2026; Linux 6.12,
	// arch/x86/kvm/svm/sev.c and svm.c.
	QEMU
	// IGVMMeasure is Coconut's tool igvmmeasure, without --check-kvm and
	// --native-zero.
	// Source: coconut-svsm/svsm f4bc4bcd, tools/igvmmeasure.
	IGVMMeasure
	// OpenVMM is the measurement of the library that OpenVMM's tools stand on.
	// Source: microsoft/igvm e6c3ff1c, igvm/src/measurement/snp.rs.
	OpenVMM
	loaders // their number, and one
)

var loaderNames = [loaders]string{QEMU: "qemu@10.1", IGVMMeasure: "igvmmeasure@2026", OpenVMM: "openvmm@2026"}

// Loaders are all of them, QEMU first.
func Loaders() []Loader { return []Loader{QEMU, IGVMMeasure, OpenVMM} }

// ParseLoader reads NAME or NAME@VERSION.
func ParseLoader(s string) (Loader, error) {
	for _, l := range Loaders() {
		name := loaderNames[l]
		if short, _, _ := strings.Cut(name, "@"); s == name || s == short {
			return l, nil
		}
	}
	return 0, fmt.Errorf("unknown loader of IGVM files %.80q, want one of %s", s, strings.Join(loaderNames[QEMU:], ", "))
}

// String returns NAME@VERSION.
func (l Loader) String() string {
	if l == 0 || l >= loaders {
		return fmt.Sprintf("loader %d", uint8(l))
	}
	return loaderNames[l]
}

// MarshalText returns NAME@VERSION.
func (l Loader) MarshalText() ([]byte, error) {
	if l == 0 || l >= loaders {
		return nil, fmt.Errorf("%v has no name", l)
	}
	return []byte(loaderNames[l]), nil
}
