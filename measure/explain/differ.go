package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kraudcloud/kattest/measure"
)

// Field is what a launch may differ in.
type Field string

// The fields, in the order in which they are compared.
const (
	FieldFirmware      Field = "firmware"
	FieldKernelHashes  Field = "kernel-hashes"
	FieldKernel        Field = "kernel"
	FieldInitrd        Field = "initrd"
	FieldCmdline       Field = "cmdline"
	FieldVMM           Field = "vmm"
	FieldCPU           Field = "cpu"
	FieldGuestFeatures Field = "guest-features"
	FieldVCPUs         Field = "vcpus"
)

// Difference is a field in which a launch is not as expected.
type Difference struct {
	Field    Field  `json:"field"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
	Meaning  string `json:"meaning"`
	Change   string `json:"change"` // of the launch, to have what is expected
}

// Launch is one launch of the space.
type Launch struct {
	Firmware     string `json:"firmware"`     // the source whose firmware it is
	KernelHashes bool   `json:"kernelHashes"` // without them, the following are not known
	Kernel       string `json:"kernel,omitempty"`
	Initrd       string `json:"initrd,omitempty"` // empty: none
	Cmdline      string `json:"cmdline,omitempty"`

	VMM           measure.Profile `json:"vmm"`
	VCPUs         int             `json:"vcpus"`
	CPUs          []string        `json:"cpus,omitempty"`         // all that have the signature
	CPUSignature  uint32          `json:"cpuSignature,omitempty"` // 0: not measured by the VMM
	GuestFeatures uint64          `json:"guestFeatures"`
}

// launch is a Launch by the sources' indices.
type launch struct {
	boot  boot
	shape measure.Shape
}

func (s Space) describe(l launch) Launch {
	d := Launch{
		Firmware:     s.Sources[l.boot.firmware].Name,
		KernelHashes: l.boot.hashes != nil,
		VMM:          l.shape.VMM, VCPUs: l.shape.VCPUs, GuestFeatures: l.shape.GuestFeatures,
	}
	if d.KernelHashes {
		d.Kernel, d.Cmdline = s.Sources[l.boot.kernel].Name, l.boot.cmdline
		if l.boot.initrd != noInitrd {
			d.Initrd = s.Sources[l.boot.initrd].Name
		}
	}
	if l.shape.VMM.MeasuresCPU() {
		d.CPUSignature, d.CPUs = l.shape.CPU.Signature, s.cpuNames(l.shape.CPU.Signature)
	}
	return d
}

// cpuNames are the CPUs with that signature.
func (s Space) cpuNames(signature uint32) []string {
	var names []string
	for _, c := range s.cpus() {
		if c.Signature == signature && c.Name != "" {
			names = append(names, c.Name)
		}
	}
	return names
}

// nearest returns the differences between the launch and what it is nearest to:
// a source, and one of its expected shapes. The first of several is taken.
func (s Space) nearest(l launch) (source int, differences []Difference) {
	source = -1
	for i, src := range s.Sources {
		booted := s.bootDifferences(l.boot, i)
		for _, e := range src.expected() {
			d := append(slices.Clone(booted), s.shapeDifferences(l.shape, e, src)...)
			if source < 0 || len(d) < len(differences) {
				source, differences = i, d
			}
		}
	}
	return source, differences
}

// bootDifferences holds what is booted against a source.
func (s Space) bootDifferences(b boot, source int) []Difference {
	want := s.Sources[source]
	var ds []Difference
	if firmwareKey(s.Sources[b.firmware].Firmware) != firmwareKey(want.Firmware) {
		ds = append(ds, Difference{
			FieldFirmware, want.Name, s.Sources[b.firmware].Name,
			"the firmware is that of " + s.Sources[b.firmware].Name, "-bios: the firmware of " + want.Name,
		})
	}
	switch {
	case b.hashes == nil && want.wantsHashes():
		return append(ds, Difference{
			FieldKernelHashes, "on", "off",
			"kernel hashes were off: the digest says nothing of kernel, initrd and command line", "-object sev-snp-guest: kernel-hashes=on",
		})
	case b.hashes == nil:
		return ds
	case !want.wantsHashes():
		return append(ds, Difference{
			FieldKernelHashes, "off", "on",
			"kernel hashes were on, of the kernel of " + s.Sources[b.kernel].Name, "-object sev-snp-guest: kernel-hashes=off",
		})
	}
	if got := s.Sources[b.kernel]; got.Kernel != want.Kernel {
		ds = append(ds, Difference{
			FieldKernel, want.Name, got.Name,
			"the kernel is that of " + got.Name, "-kernel: the kernel of " + want.Name,
		})
	}
	if s.initrd(b.initrd) != want.Initrd {
		d := Difference{FieldInitrd, want.Name, "none", "there was no initrd", "-initrd: the initrd of " + want.Name}
		if b.initrd != noInitrd {
			d.Found = s.Sources[b.initrd].Name
			d.Meaning = "the initrd is that of " + d.Found
		}
		if want.Initrd == measure.NoInitrd() {
			d.Expected, d.Change = "none", "no -initrd"
		}
		ds = append(ds, d)
	}
	if b.cmdline != want.Cmdline {
		ds = append(ds, Difference{
			FieldCmdline, want.Cmdline, b.cmdline,
			fmt.Sprintf("the command line was %q", b.cmdline), fmt.Sprintf("-append %q", want.Cmdline),
		})
	}
	return ds
}

// shapeDifferences holds a shape against an expected one of src.
func (s Space) shapeDifferences(got, want measure.Shape, src Source) []Difference {
	var ds []Difference
	features := want.GuestFeatures
	if want.VMM != 0 && got.VMM != want.VMM {
		d := got.VMM.Describe()
		ds = append(ds, Difference{
			FieldVMM, want.VMM.String(), got.VMM.String(),
			fmt.Sprintf("launched as %v does (%s): %s", got.VMM, d.Host, d.Differs), "a host that launches as " + want.VMM.String() + " does",
		})
		if features == want.VMM.Describe().GuestFeatures {
			features = d.GuestFeatures // another VMM's own features are no further flag
		}
	}
	if want.CPU.Signature != 0 && got.VMM.MeasuresCPU() && got.CPU.Signature != want.CPU.Signature {
		ds = append(ds, Difference{
			FieldCPU, s.cpuText(want.CPU.Signature), s.cpuText(got.CPU.Signature),
			"the CPU was " + s.cpuText(got.CPU.Signature), "-cpu " + want.CPU.String(),
		})
	}
	if features != 0 && got.GuestFeatures != features {
		ds = append(ds, Difference{
			FieldGuestFeatures, fmt.Sprintf("%#x", features), fmt.Sprintf("%#x", got.GuestFeatures),
			"SEV_FEATURES " + featureText(got.GuestFeatures, features), fmt.Sprintf("SEV_FEATURES %#x, in the VMM or the host's kernel", features),
		})
	}
	if want.VCPUs != 0 && got.VCPUs != want.VCPUs {
		counts := countsText(src)
		ds = append(ds, Difference{
			FieldVCPUs, counts, strconv.Itoa(got.VCPUs),
			fmt.Sprintf("launched with %s; expected of %s: %s", vcpusText(got.VCPUs), src.Name, counts), "-smp " + strings.ReplaceAll(counts, ", ", " or "),
		})
	}
	return ds
}

func (s Space) cpuText(signature uint32) string {
	names := s.cpuNames(signature)
	text := fmt.Sprintf("signature %#x", signature)
	switch len(names) {
	case 0:
		return text
	case 1:
		return fmt.Sprintf("%s (%s)", names[0], text)
	default:
		return fmt.Sprintf("%s or another model with its %s", names[0], text)
	}
}

// featureNames are the bits' names. Source: as for measure.SNPActive.
func featureNames() map[uint64]string {
	return map[uint64]string{
		1 << 0: "SNPActive", 1 << 1: "vTOM", 1 << 2: "ReflectVC", 1 << 3: "RestrictedInjection",
		1 << 4: "AlternateInjection", 1 << 5: "DebugSwap", 1 << 6: "PreventHostIBS", 1 << 7: "BTBIsolation",
		1 << 8: "VmplSSS", 1 << 9: "SecureTSC", 1 << 10: "VmgexitParameter", 1 << 12: "IbsVirtualization",
		1 << 14: "VmsaRegProt", 1 << 15: "SmtProtection", 1 << 16: "SecureAvic", 1 << 21: "IbpbOnEntry",
	}
}

// featureText says what a mask has, and lacks, beside the one expected.
func featureText(got, want uint64) string {
	text := fmt.Sprintf("%#x", got)
	names := featureNames()
	for _, side := range []struct {
		bits uint64
		what string
	}{{got &^ want, "on"}, {want &^ got, "off"}} {
		var list []string
		for bit := uint64(1); bit != 0; bit <<= 1 {
			if side.bits&bit != 0 {
				list = append(list, names[bit])
			}
		}
		if len(list) > 0 {
			text += fmt.Sprintf(", %s %s", strings.Join(list, " and "), side.what)
		}
	}
	return text
}

// countsText lists the numbers of vCPUs that are expected of a source.
func countsText(src Source) string {
	const shown = 16
	var counts []int
	for _, e := range src.Expected {
		counts = append(counts, e.VCPUs)
	}
	slices.Sort(counts)
	counts = slices.Compact(counts)
	var text []string
	for i, n := range counts {
		if i == shown {
			text = append(text, fmt.Sprintf("… %d", counts[len(counts)-1]))
			break
		}
		text = append(text, strconv.Itoa(n))
	}
	return strings.Join(text, ", ")
}

func vcpusText(n int) string {
	if n == 1 {
		return "1 vCPU"
	}
	return fmt.Sprintf("%d vCPUs", n)
}
