// Package platform gets attestation reports for the guest that it runs in. The
// processor says which provider of reports there is, the host has no say: on
// SEV-SNP the kernel's (configfs-tsm), elsewhere the simulated one.
//
// The package checks a report's form and that it answers the request. It checks
// no signature: a report is the processor's word because of the way by which it
// came, and whoever reads it elsewhere verifies it.
package platform

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"
	"golang.org/x/sys/unix"

	"github.com/kraudcloud/kattest/guest/port"
)

// Kind says what makes the reports.
type Kind int

// The kinds. The zero value is none.
const (
	SNP       Kind = iota + 1 // the AMD Secure Processor
	Simulated                 // the host's simulation of one
)

// String returns "snp" or "simulated".
func (k Kind) String() string {
	switch k {
	case SNP:
		return "snp"
	case Simulated:
		return "simulated"
	default:
		return fmt.Sprintf("Kind(%d)", int(k))
	}
}

// SEV_STATUS. Source: AMD 24593 rev 3.42 (APM volume 2), section 15.34.10. A
// host cannot intercept a guest's reads of it.
const (
	sevStatusMSR = 0xc0010131
	snpEnabled   = 1 << 2
)

// Paths of the kernel's. snpFolder exists where the kernel itself runs as an
// SNP guest. Source: Linux 6.12, arch/x86/coco/sev/core.c, sev_sysfs_init.
const (
	msrDevice = "/dev/cpu/0/msr"
	snpFolder = "/sys/devices/system/cpu/sev"
)

// Detect says which kind the processor wants. It fails where the processor's
// word cannot be had, or is not what the kernel says.
func Detect() (Kind, error) {
	status, err := readMSR(msrDevice, sevStatusMSR)
	_, statErr := os.Stat(snpFolder)
	if statErr != nil && !errors.Is(statErr, os.ErrNotExist) {
		return 0, fmt.Errorf("asking the kernel for its platform: %w", statErr)
	}
	return choose(status, err, statErr == nil)
}

// choose decides. A processor without the register answers a read with a fault,
// which the kernel makes EIO: so does KVM for a guest without SEV. Under SNP a
// read cannot fail. Any other error says nothing, and so nothing is chosen.
func choose(status uint64, err error, kernelSNP bool) (Kind, error) {
	if err != nil && !errors.Is(err, unix.EIO) {
		return 0, fmt.Errorf("reading SEV_STATUS (MSR %#x): %w", sevStatusMSR, err)
	}
	snp := err == nil && status&snpEnabled != 0
	switch {
	case snp != kernelSNP:
		return 0, fmt.Errorf("SEV_STATUS says SNP %t, the kernel %t", snp, kernelSNP)
	case snp:
		return SNP, nil
	default:
		return Simulated, nil
	}
}

func readMSR(device string, register int64) (uint64, error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [8]byte
	if n, err := unix.Pread(int(f.Fd()), b[:], register); err != nil {
		return 0, err
	} else if n != len(b) {
		return 0, io.ErrUnexpectedEOF
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// Platform gets reports, one at a time.
type Platform struct {
	kind   Kind
	client configfsi.Client
	mu     sync.Mutex
}

// Open returns the platform of that kind. openPSP opens the simulated PSP's
// port; it is called for Simulated alone.
func Open(kind Kind, openPSP func() (io.ReadWriter, error)) (*Platform, error) {
	switch kind {
	case SNP:
		client, err := linuxtsm.MakeClient()
		if err != nil {
			return nil, fmt.Errorf("the processor says SNP, and the kernel offers no reports: %w", err)
		}
		return &Platform{kind: kind, client: client}, nil
	case Simulated:
		rw, err := openPSP()
		if err != nil {
			return nil, fmt.Errorf("opening the simulated PSP: %w", err)
		}
		return &Platform{kind: kind, client: NewSimulatedClient(rw)}, nil
	default:
		return nil, fmt.Errorf("no platform of kind %v", kind)
	}
}

// Kind returns what makes the reports.
func (p *Platform) Kind() Kind { return p.kind }

// Report is an attestation report and the certificate table that came with it.
type Report struct {
	Raw          [port.ReportSize]byte
	Certificates []byte // 0 to port.MaxCertificates bytes
}

// HostData returns HOST_DATA, bytes 0xc0 to 0xdf.
func (r Report) HostData() [32]byte { return [32]byte(r.Raw[0xc0:0xe0]) }

// Report asks for a report at VMPL 0 and checks its form.
func (p *Platform) Report(reportData [64]byte) (Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rsp, err := report.Get(p.client, &report.Request{
		InBlob:     reportData[:],
		Privilege:  &report.Privilege{Level: 0},
		GetAuxBlob: true,
	})
	if err != nil {
		return Report{}, fmt.Errorf("getting a report: %w", err)
	}
	if n := len(rsp.OutBlob); n != port.ReportSize {
		return Report{}, fmt.Errorf("report: %d bytes, want %d", n, port.ReportSize)
	}
	if n := len(rsp.AuxBlob); n > port.MaxCertificates {
		return Report{}, fmt.Errorf("certificate table: %d bytes, more than %d", n, port.MaxCertificates)
	}
	r := Report{Raw: [port.ReportSize]byte(rsp.OutBlob), Certificates: rsp.AuxBlob}
	if err := r.check(reportData); err != nil {
		return Report{}, err
	}
	return r, nil
}

// Versions of ATTESTATION_REPORT whose fields below stand at the same offsets.
// Source: AMD 56860 rev 1.58, section 7.3, table 23.
const (
	minVersion = 2
	maxVersion = 5
)

const policyDebug = 1 << 19 // POLICY.DEBUG. Source: AMD 56860 rev 1.58, section 4.3, table 9.

// check holds the report against the request.
func (r Report) check(reportData [64]byte) error {
	var errs []error
	le := binary.LittleEndian
	if v := le.Uint32(r.Raw[0:]); v < minVersion || v > maxVersion {
		errs = append(errs, fmt.Errorf("report [0x00:0x04]: VERSION %d is not between %d and %d", v, minVersion, maxVersion))
	}
	if policy := le.Uint64(r.Raw[0x08:]); policy&policyDebug != 0 {
		errs = append(errs, fmt.Errorf("report [0x08:0x10]: POLICY %#x lets the host debug the guest", policy))
	}
	if vmpl := le.Uint32(r.Raw[0x30:]); vmpl != 0 {
		errs = append(errs, fmt.Errorf("report [0x30:0x34]: VMPL %d, want 0", vmpl))
	}
	if got := [64]byte(r.Raw[0x50:0x90]); got != reportData {
		errs = append(errs, fmt.Errorf("report [0x50:0x90]: REPORT_DATA %x, want %x", got, reportData))
	}
	return errors.Join(errs...)
}
