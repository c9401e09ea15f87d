// Package port is the seam between host and guest below the network: the
// names of the disks and virtio-serial ports that the launcher attaches, the
// form of the spec disk, the control messages, and the simulated PSP's
// messages. What comes from the host through any of them is untrusted.
package port

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Disks, by their virtio serial (/sys/block/vdX/serial).
const (
	SpecDisk = "spec" // the launch spec, see EncodeSpecDisk
	RootDisk = "root" // the image: EROFS data, then the dm-verity tree
	// ScratchDisk is what the container's writable layer is kept on, if the spec
	// says so.
	ScratchDisk = "scratch"
	volumeDisk  = "vol-"
)

// VolumeDisk is the serial of the disk of the volume of that name.
func VolumeDisk(name string) string { return volumeDisk + name }

// Virtio-serial ports, by their name (/sys/class/virtio-ports/vportXpY/name).
const (
	ControlPort = "kattest.control" // lines, see Event and CommandStop
	StdoutPort  = "kattest.stdout"  // the workload's standard output
	StderrPort  = "kattest.stderr"  // the workload's standard error
	PSPPort     = "kattest.psp"     // the simulated PSP, on --platform sim alone
)

// AgentPort is the guest's TCP port on which the agent answers challenges, over TLS.
const AgentPort = 1

// TunnelPath and the number of a port below it is where AgentPort leads on to a TCP
// port of the workload's, by an HTTP upgrade to TunnelProtocol.
const (
	TunnelPath     = "/v1/tunnel/"
	TunnelProtocol = "kattest-tunnel"
)

// DockerPath is where AgentPort leads on to docker's API, by an HTTP upgrade to
// DockerProtocol. Both exist for clients that the launch spec names.
const (
	DockerPath     = "/v1/docker"
	DockerProtocol = "kattest-docker"
)

// MaxLine is the longest control line, in bytes, with its line feed.
const MaxLine = 4096

// CommandStop is the line by which the host asks the agent to stop the workload.
const CommandStop = "stop"

// Event is one line, in JSON, that the agent writes to the control port.
type Event struct {
	// Name is what happened.
	Name EventName `json:"name"`
	// Uptime is the time since the kernel started, in microseconds (CLOCK_BOOTTIME).
	Uptime int64 `json:"uptime"`
	// Exit is the container's exit status (128 + signal if one killed it), with EventExit.
	Exit int `json:"exit,omitempty"`
	// Health is how the workload is, with EventHealth.
	Health Health `json:"health,omitempty"`
	// Reason says why the agent powers off, with EventRefused.
	Reason string `json:"reason,omitempty"`
}

// EventName names an Event.
type EventName string

// The events, in the order in which a guest sends them.
const (
	EventAgent   EventName = "agent"   // the agent runs: its first line
	EventServing EventName = "serving" // challenges are answered on AgentPort
	EventStarted EventName = "started" // the container's process was executed
	EventHealth  EventName = "health"  // the workload's health changed, any number of times
	EventExit    EventName = "exit"    // the container's process ended
	EventRefused EventName = "refused" // the agent refused to go on
)

// Health is docker's word for how a workload is that has a healthcheck.
type Health string

// The values of Health.
const (
	HealthStarting Health = "starting"
	Healthy        Health = "healthy"
	Unhealthy      Health = "unhealthy"
)

// ParseHealth reads one of the values.
func ParseHealth(s string) (Health, error) {
	switch h := Health(s); h {
	case HealthStarting, Healthy, Unhealthy:
		return h, nil
	}
	return "", fmt.Errorf("unknown health %.40q", s)
}

// SpecDiskBlock is the unit to which a spec disk is padded, in bytes.
const SpecDiskBlock = 4096

var specDiskMagic = [8]byte{'K', 'A', 'T', 'S', 'P', 'E', 'C', '1'}

// EncodeSpecDisk returns the content of the spec disk.
//
//	offset  size  field
//	0x00    8     magic "KATSPEC1"
//	0x08    4     length n of the spec, bytes, little-endian
//	0x0c    n     the launch spec in canonical form
//	…             zeros up to a multiple of 4096 bytes
func EncodeSpecDisk(spec []byte) []byte {
	n := (12 + len(spec) + SpecDiskBlock - 1) / SpecDiskBlock * SpecDiskBlock
	b := make([]byte, 12, n)
	copy(b, specDiskMagic[:])
	binary.LittleEndian.PutUint32(b[8:], uint32(len(spec)))
	b = append(b, spec...)
	return b[:n]
}

// DecodeSpecDisk reads the launch spec from a spec disk. It refuses a spec of
// more than limit bytes, a cut-off disk, and padding that is not zero.
func DecodeSpecDisk(r io.Reader, limit int) ([]byte, error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("spec disk: reading its 12-byte head: %w", err)
	}
	if !bytes.Equal(head[:8], specDiskMagic[:]) {
		return nil, fmt.Errorf("spec disk: [0:8]: magic %q, want %q", head[:8], specDiskMagic[:])
	}
	n := binary.LittleEndian.Uint32(head[8:])
	if uint64(n) > uint64(limit) {
		return nil, fmt.Errorf("spec disk: [8:12]: length %d is more than %d", n, limit)
	}
	whole := len(EncodeSpecDisk(make([]byte, n)))
	rest := make([]byte, whole-len(head))
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, fmt.Errorf("spec disk: reading %d bytes: %w", whole, err)
	}
	for i, c := range rest[n:] {
		if c != 0 {
			return nil, fmt.Errorf("spec disk: [%d]: padding is not zero", len(head)+int(n)+i)
		}
	}
	return rest[:n], nil
}

// Sizes of the messages between guest and PSP, in bytes.
// Source: AMD 56860 rev 1.55, section 7.3, tables 21 (MSG_REPORT_REQ) and 24 (MSG_REPORT_RSP).
const (
	ReportRequestSize  = 96
	ReportSize         = 1184
	reportResponseSize = 32 + ReportSize
	// MaxCertificates bounds the certificate table that follows a report.
	MaxCertificates = 64 << 10
)

// ReportRequest asks for a report. As on the wire:
//
//	offset  size  field
//	0x00    64    REPORT_DATA
//	0x40    4     VMPL
//	0x44    4     KEY_SEL in bits 1:0
//	0x48    24    reserved, zero
type ReportRequest struct {
	ReportData [64]byte
	VMPL       uint32
}

// Encode returns the request as it crosses the port.
func (r ReportRequest) Encode() [ReportRequestSize]byte {
	var b [ReportRequestSize]byte
	copy(b[:], r.ReportData[:])
	binary.LittleEndian.PutUint32(b[0x40:], r.VMPL)
	return b
}

// DecodeReportRequest reads a request. The VMPL must be 0 to 3 and the reserved
// bytes zero; KEY_SEL must be 0 (VLEK if there is one, else VCEK).
func DecodeReportRequest(b [ReportRequestSize]byte) (ReportRequest, error) {
	r := ReportRequest{VMPL: binary.LittleEndian.Uint32(b[0x40:])}
	copy(r.ReportData[:], b[:])
	if r.VMPL > 3 {
		return ReportRequest{}, fmt.Errorf("MSG_REPORT_REQ [0x40:0x44]: VMPL %d is above 3", r.VMPL)
	}
	for i := 0x44; i < ReportRequestSize; i++ {
		if b[i] != 0 {
			return ReportRequest{}, fmt.Errorf("MSG_REPORT_REQ [%#x]: %#02x, want 0", i, b[i])
		}
	}
	return r, nil
}

// ReportResponse is the answer. On the simulated port it is framed by its
// length, and the certificate table of GHCB 2.03, section 4.1.8.1, follows it:
//
//	offset  size  field
//	0x000   4     length of what follows, bytes, little-endian
//	0x004   4     STATUS, 0 for success
//	0x008   4     REPORT_SIZE, 1184
//	0x00c   24    reserved, zero
//	0x024   1184  the attestation report
//	0x4c4   …     certificate table, 0 to 65536 bytes
type ReportResponse struct {
	Status       uint32
	Report       [ReportSize]byte
	Certificates []byte
}

// Encode returns the response as it crosses the port.
func (r ReportResponse) Encode() []byte {
	b := make([]byte, 4+reportResponseSize, 4+reportResponseSize+len(r.Certificates))
	binary.LittleEndian.PutUint32(b[0:], uint32(reportResponseSize+len(r.Certificates)))
	binary.LittleEndian.PutUint32(b[4:], r.Status)
	binary.LittleEndian.PutUint32(b[8:], ReportSize)
	copy(b[0x24:], r.Report[:])
	return append(b, r.Certificates...)
}

// ReadReportResponse reads one response. A STATUS other than 0 is an error.
func ReadReportResponse(r io.Reader) (ReportResponse, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return ReportResponse{}, fmt.Errorf("MSG_REPORT_RSP: reading its length: %w", err)
	}
	n := binary.LittleEndian.Uint32(length[:])
	if n < reportResponseSize || n > reportResponseSize+MaxCertificates {
		return ReportResponse{}, fmt.Errorf("MSG_REPORT_RSP: length %d is not between %d and %d", n, reportResponseSize, reportResponseSize+MaxCertificates)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return ReportResponse{}, fmt.Errorf("MSG_REPORT_RSP: reading %d bytes: %w", n, err)
	}
	if status := binary.LittleEndian.Uint32(b); status != 0 {
		return ReportResponse{}, fmt.Errorf("MSG_REPORT_RSP [0x00:0x04]: STATUS %#x", status)
	}
	if size := binary.LittleEndian.Uint32(b[4:]); size != ReportSize {
		return ReportResponse{}, fmt.Errorf("MSG_REPORT_RSP [0x04:0x08]: REPORT_SIZE %d, want %d", size, ReportSize)
	}
	if !bytes.Equal(b[8:32], make([]byte, 24)) {
		return ReportResponse{}, errors.New("MSG_REPORT_RSP [0x08:0x20]: reserved bytes are not zero")
	}
	rsp := ReportResponse{Certificates: b[reportResponseSize:]}
	copy(rsp.Report[:], b[32:])
	return rsp, nil
}
