package igvm

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kraudcloud/kattest/measure"
)

func put(at, size int, value uint64) func([]byte) {
	return func(b []byte) {
		var v [8]byte
		binary.LittleEndian.PutUint64(v[:], value)
		copy(b[at:at+size], v[:])
	}
}

// What QEMU and KVM make of a context, field by field. The values are worked out
// by hand from their sources.
func TestVMSAIsMade(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  []func([]byte) // in the file
		made    []func([]byte) // to it, in the guest
		changes []string
	}{
		{"as it stands", nil, nil, nil},
		{"CR0.ET is set", []func([]byte){put(0x158, 8, 0x21)}, []func([]byte){put(0x158, 8, 0x31)}, []string{"CR0 is 0x21 in the file and 0x31 in the guest"}},
		{"CR0.CD and NW are cleared, NE is not set", []func([]byte){put(0x158, 8, 0x60000011)}, []func([]byte){put(0x158, 8, 0x11)}, []string{"CR0 is 0x60000011 in the file and 0x11 in the guest"}},
		{"CR4.MCE is set", []func([]byte){put(0x148, 8, 0x20)}, []func([]byte){put(0x148, 8, 0x60)}, []string{"CR4 is 0x20 in the file and 0x60 in the guest"}},
		{"EFER.SVME is set", []func([]byte){put(0x0d0, 8, 0x800)}, []func([]byte){put(0x0d0, 8, 0x1800)}, []string{"EFER is 0x800 in the file and 0x1800 in the guest"}},
		{
			"EFER.LMA is set in long mode",
			[]func([]byte){put(0x0d0, 8, 0x1900), put(0x158, 8, 0x80000031)},
			[]func([]byte){put(0x0d0, 8, 0x1d00)},
			[]string{"EFER is 0x1900 in the file and 0x1d00 in the guest"},
		},
		{"RFLAGS has its one", []func([]byte){put(0x170, 8, 0)}, []func([]byte){put(0x170, 8, 2)}, []string{"RFLAGS is 0x0 in the file and 0x2 in the guest"}},
		{
			"CPL is SS's DPL",
			[]func([]byte){put(0x022, 2, 0xaf3)},
			[]func([]byte){put(0x0cb, 1, 3)},
			[]string{"CPL is 00 in the file and 03 in the guest"},
		},
		{
			"attributes have 12 bits",
			[]func([]byte){put(0x012, 2, 0xcc9b)},
			[]func([]byte){put(0x012, 2, 0xc9b)},
			[]string{"CS is 08009bccffffffff0000000000000000 in the file and 08009b0cffffffff0000000000000000 in the guest"},
		},
		{
			"TR has LDTR's base",
			[]func([]byte){put(0x078, 8, 0x1000), put(0x098, 8, 0x2000)},
			[]func([]byte){put(0x098, 8, 0x1000)},
			[]string{"TR is 00000000000000000020000000000000 in the file and 00000000000000000010000000000000 in the guest"},
		},
		{
			"descriptor tables are limit and base",
			[]func([]byte){put(0x060, 8, 0x0001ffff_00930008), put(0x068, 8, 0x5000)},
			[]func([]byte){put(0x060, 8, 0x0000ffff_00000000)},
			[]string{"GDTR is 08009300ffff01000050000000000000 in the file and 00000000ffff00000050000000000000 in the guest"},
		},
		{
			"KVM's FPU state, not the file's",
			[]func([]byte){put(0x408, 4, 0), put(0x410, 2, 0)},
			[]func([]byte){put(0x408, 4, 0x1f80), put(0x410, 2, 0x37f)},
			[]string{"MXCSR is 00000000 in the file and 801f0000 in the guest", "X87_FCW is 0000 in the file and 7f03 in the guest"},
		},
		{"what is behind the save area is zero", []func([]byte){put(1648, 8, 7)}, []func([]byte){put(1648, 8, 0)}, []string{"what stands behind byte 0x670 in the file is zero in the guest"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := mustLoad(t, free().context(snp, 0xfffffffff000, 0, vmsa(tt.change...)).build(), QEMU)
			got, err := i.Measure(1, measure.CPU{})
			if err != nil {
				t.Fatal(err)
			}
			if want := chain([]added{normal(first, 1), vCPUState(vmsa(append(tt.change, tt.made...)...))}); got != want {
				t.Errorf("%v, want %v", got, want)
			}
			var changes []string
			for _, c := range tt.changes {
				changes = append(changes, "vCPU 0: "+c)
			}
			if diff := cmp.Diff(changes, i.Changes()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Every vCPU has the first one's SEV_FEATURES.
func TestFeatures(t *testing.T) {
	file := free().context(snp, 0xfffffffff000, 1, vmsa(put(0x3b0, 8, 0x21))).context(snp, 0xfffffffff000, 0, vmsa(put(0x3b0, 8, 0x9)))
	i := mustLoad(t, file.build(), QEMU)
	if i.GuestFeatures() != 9 {
		t.Errorf("features %#x, want 0x9", i.GuestFeatures())
	}
	got, err := i.Measure(2, measure.CPU{})
	state := vCPUState(vmsa(put(0x3b0, 8, 0x9)))
	if want := chain([]added{normal(first, 1), state, state}); err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if diff := cmp.Diff([]string{"vCPU 1: SEV_FEATURES is 0x21 in the file and 0x9 in the guest"}, i.Changes()); diff != "" {
		t.Error(diff)
	}
}

func TestVMSARefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change []func([]byte)
		err    string
	}{
		{"VMPL", []func([]byte){put(0x0ca, 1, 1)}, "the VMSA's byte 0xca is 0x1: it is of a field that QEMU does not pass on"},
		{"STAR", []func([]byte){put(0x200, 8, 1)}, "byte 0x200"},
		{"virtual TOM", []func([]byte){put(0x3c8, 8, 1)}, "byte 0x3c8"},
		{"not SNP", []func([]byte){put(0x3b0, 8, 0x20)}, "SEV_FEATURES 0x20 has SNPActive (bit 0) clear"},
		{"unknown feature", []func([]byte){put(0x3b0, 8, 1|1<<40)}, "has unknown bits 0x10000000000"},
		{"CR0 too wide", []func([]byte){put(0x158, 8, 1<<32|0x31)}, "beyond 32 bits"},
		{"long mode without PAE", []func([]byte){put(0x0d0, 8, 0x1900), put(0x158, 8, 0x80000031), put(0x148, 8, 0x40)}, "CR4.PAE is clear"},
		{"LMA without LME", []func([]byte){put(0x0d0, 8, 0x1400)}, "EFER.LMA is set without"},
		{"CS.L without long mode", []func([]byte){put(0x012, 2, 0xa9b)}, "CS is of 64 bits without"},
		{"DR7", []func([]byte){put(0x160, 8, 0x401)}, "DR7 0x401 has breakpoints"},
		{"DR6", []func([]byte){put(0x168, 8, 1<<32)}, "DR6 0x100000000 is beyond 32 bits"},
		{"virtual-8086 mode", []func([]byte){put(0x170, 8, 0x20002)}, "RFLAGS.VM is set"},
		{"XCR0", []func([]byte){put(0x3e8, 8, 0)}, "XCR0 0x0 has bit 0 clear"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := mustOpen(t, free().context(snp, 0xfffffffff000, 0, vmsa(tt.change...)).build())
			i, err := f.Load(QEMU)
			refused := (*RefusedError)(nil)
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.err) || i != nil {
				t.Errorf("%v, want %q", err, tt.err)
			}
			if _, err := f.Load(IGVMMeasure); err != nil {
				t.Errorf("igvmmeasure takes it as it stands: %v", err)
			}
		})
	}
}
