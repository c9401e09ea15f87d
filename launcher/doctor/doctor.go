// Package doctor says whether a host can launch SEV-SNP guests, and what to do
// where it cannot. Each row of its report has a stable name, which is documented
// in docs/spec/doctor.md. The host is read through one interface, so that what is
// judged can be a machine or a recording of one.
//
// It serves the host's administrator. A guest's owner learns nothing from it: all
// that it reads, a hostile host may make up. It launches nothing, so that a host
// with no failure may still fail to launch.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// MediaType names this version of the report.
const MediaType = "application/vnd.kattest.doctor.v1+json"

// Outcome is what became of a check. The zero value is none.
type Outcome int

// The outcomes. A failure alone keeps a guest from being launched.
const (
	_       Outcome = iota
	Pass            // as it must be
	Warn            // a guest can be launched; something else will go wrong, or is missing for some
	Fail            // no guest can be launched
	Unknown         // it could not be read
	Skip            // without meaning, as an earlier check failed
)

var outcomes = []string{"", "pass", "warn", "fail", "unknown", "skip"}

func (o Outcome) String() string {
	if o < Pass || o > Skip {
		return fmt.Sprintf("outcome %d", int(o))
	}
	return outcomes[o]
}

// ParseOutcome reads what String returns.
func ParseOutcome(s string) (Outcome, error) {
	for o := Pass; o <= Skip; o++ {
		if outcomes[o] == s {
			return o, nil
		}
	}
	return 0, fmt.Errorf("unknown outcome %q", s)
}

// MarshalText returns what String does, and refuses what has no name.
func (o Outcome) MarshalText() ([]byte, error) {
	if _, err := ParseOutcome(o.String()); err != nil {
		return nil, err
	}
	return []byte(o.String()), nil
}

// UnmarshalText is ParseOutcome.
func (o *Outcome) UnmarshalText(text []byte) error {
	parsed, err := ParseOutcome(string(text))
	*o = parsed
	return err
}

// Check is one row of a report.
type Check struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	Found   string  `json:"found"`
	Fix     string  `json:"fix,omitempty"` // what to do; with every outcome but Pass and Skip
}

// Report is a host's state.
type Report struct {
	MediaType string  `json:"mediaType"`
	Ready     bool    `json:"ready"` // no check fails
	Checks    []Check `json:"checks"`
}

// Failed returns the checks that fail.
func (r Report) Failed() []Check {
	var failed []Check
	for _, c := range r.Checks {
		if c.Outcome == Fail {
			failed = append(failed, c)
		}
	}
	return failed
}

// Want is the launch that the host is examined for.
type Want struct {
	CPU       string `json:"cpu"`                 // QEMU's name of the CPU model
	MemoryMiB int    `json:"memoryMiB"`           // the guest's memory
	Firmware  string `json:"firmware"`            // the firmware's file
	SEVDevice string `json:"sevDevice,omitempty"` // empty is DefaultSEVDevice
	Bridge    string `json:"bridge,omitempty"`    // the host's bridge; empty is QEMU's own network
	VSock     bool   `json:"vsock,omitempty"`     // the guest is reached by vsock, too
}

// DefaultSEVDevice leads to the secure processor.
const DefaultSEVDevice = "/dev/sev"

// Examine looks at everything that a launch depends on.
func Examine(ctx context.Context, h Host, w Want) Report {
	if w.SEVDevice == "" {
		w.SEVDevice = DefaultSEVDevice
	}
	e := exam{ctx: ctx, host: h, want: w}
	r := Report{MediaType: MediaType, Checks: []Check{}}
	for _, row := range rows() {
		f := row.look(e)
		r.Checks = append(r.Checks, Check{Name: row.name, Outcome: f.outcome, Found: f.found, Fix: f.fix})
	}
	r.Ready = len(r.Failed()) == 0
	return r
}

// exam is one look at a host.
type exam struct {
	ctx  context.Context
	host Host
	want Want
}

// row is a check: its name and how it is made.
type row struct {
	name string
	look func(exam) finding
}

// rows are all checks, causes before what follows from them.
func rows() []row {
	return []row{
		{"cpu", exam.cpu},
		{"cpu.sev", cpuBit(1, "SEV")},
		{"cpu.sev-es", cpuBit(3, "SEV-ES")},
		{"cpu.sev-snp", cpuBit(4, "SEV-SNP")},
		{"cpu.vmpl", exam.vmpl},
		{"cpu.c-bit", exam.cbit},
		{"cpu.asids", exam.asids},
		{"msr.sme", exam.sme},
		{"msr.snp", exam.snpEnabled},
		{"rmp", exam.rmp},
		{"rmp.coverage", exam.rmpCoverage},
		{"kernel", exam.kernel},
		{"iommu", exam.iommu},
		{"iommu.translation", exam.iommuTranslation},
		{"kvm_amd.sev", kvmAMD("sev")},
		{"kvm_amd.sev_es", kvmAMD("sev_es")},
		{"kvm_amd.sev_snp", kvmAMD("sev_snp")},
		{"kvm", exam.kvm},
		{"kvm.snp", exam.kvmSNP},
		{"kvm.memory-attributes", exam.kvmMemoryAttributes},
		{"kvm.guest-memfd", exam.kvmGuestMemfd},
		{"psp", exam.psp},
		{"psp.firmware", exam.pspFirmware},
		{"psp.state", exam.pspState},
		{"snp.state", exam.snpState},
		{"snp.rmp", exam.snpRMP},
		{"snp.alias-check", exam.snpAliasCheck},
		{"snp.tcb", exam.snpTCB},
		{"snp.chip-key", exam.snpChipKey},
		{"qemu", exam.qemu},
		{"qemu.sev-snp", exam.qemuSNP},
		{"qemu.cpu", exam.qemuCPU},
		{"firmware", exam.firmware},
		{"firmware.hash-table", exam.hashTable},
		{"firmware.kernel-hashes", exam.kernelHashes},
		{"vsock", exam.vsock},
		{"tun", exam.tun},
		{"bridge", exam.bridge},
		{"memlock", exam.memlock},
	}
}

// finding is what a check came to.
type finding struct {
	outcome    Outcome
	found, fix string
}

func pass(format string, args ...any) finding {
	return finding{outcome: Pass, found: fmt.Sprintf(format, args...)}
}

func fail(fix, format string, args ...any) finding {
	return finding{outcome: Fail, found: fmt.Sprintf(format, args...), fix: fix}
}

func warn(fix, format string, args ...any) finding {
	return finding{outcome: Warn, found: fmt.Sprintf(format, args...), fix: fix}
}

func unknown(fix string, err error) finding {
	return finding{outcome: Unknown, found: err.Error(), fix: fix}
}

// skip says by which check it is moot.
func skip(cause string) finding {
	return finding{outcome: Skip, found: "see " + cause}
}

// passIf passes or fails with the same words.
func passIf(ok bool, fix, format string, args ...any) finding {
	if ok {
		return pass(format, args...)
	}
	return fail(fix, format, args...)
}

// denied is the fix for a device that is there and may not be opened.
func denied(device string) string {
	return fmt.Sprintf("give your user access to %s (its group is in 'ls -l %s'), or run as root", device, device)
}

// device judges whether a device can be opened; absent says what its absence means.
func (e exam) device(name string, absent finding) finding {
	err := e.host.Open(name)
	switch {
	case err == nil:
		return pass("%s", name)
	case errors.Is(err, fs.ErrNotExist):
		absent.found = name + " is not there"
		return absent
	case errors.Is(err, fs.ErrPermission):
		return finding{outcome: absent.outcome, found: err.Error(), fix: denied(name)}
	}
	return finding{outcome: absent.outcome, found: err.Error(), fix: absent.fix}
}
