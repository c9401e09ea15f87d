package kattest

import (
	"encoding"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/kraudcloud/kattest/measure"
)

const measurementMediaType = "application/vnd.kattest.measurement.v1+json"

// measurements is the answer of kattest measure; docs/measurement.md has its JSON.
type measurements struct {
	MediaType    string        `json:"mediaType"`
	KernelHashes bool          `json:"kernelHashes"`
	Table        []measurement `json:"table"`
}

// measurement is one launch and its digest, of 48 bytes, or 32 before SEV-SNP.
type measurement struct {
	VMM           measure.Profile `json:"vmm"`
	VCPUs         int             `json:"vcpus"`
	CPU           string          `json:"cpu,omitempty"`
	CPUSignature  uint32          `json:"cpuSignature"`
	GuestFeatures uint64          `json:"guestFeatures"`
	Measurement   digest          `json:"measurement"`
}

// digest is a measure.Digest or a measure.SEVDigest.
type digest interface {
	fmt.Stringer
	encoding.TextMarshaler
}

func (m *measurements) add(s measure.Shape, d digest) {
	m.Table = append(m.Table, measurement{s.VMM, s.VCPUs, s.CPU.Name, s.CPU.Signature, s.GuestFeatures, d})
}

func (m measurements) write(w io.Writer, output string) error {
	digests := make([]digest, len(m.Table))
	for i, e := range m.Table {
		digests[i] = e.Measurement
	}
	return writeMeasured(w, output, m, digests, m.rows)
}

// writeMeasured prints an answer in one of the forms of kattest measure: as JSON,
// as its digests, or as a table of rows.
func writeMeasured(w io.Writer, output string, answer any, digests []digest, rows func(tw io.Writer)) error {
	switch output {
	case "json":
		return writeJSON(w, answer)
	case "digest":
		for _, d := range digests {
			if _, err := fmt.Fprintln(w, d); err != nil {
				return err
			}
		}
		return nil
	default:
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		rows(tw)
		return tw.Flush()
	}
}

func (m measurements) rows(tw io.Writer) {
	fmt.Fprintln(tw, "VMM\tVCPUS\tCPU\tFEATURES\tMEASUREMENT")
	for _, e := range m.Table {
		cpu := "any"
		if e.VMM.MeasuresCPU() {
			cpu = measure.CPU{Name: e.CPU, Signature: e.CPUSignature}.String()
		}
		fmt.Fprintf(tw, "%v\t%d\t%s\t%#x\t%s\n", e.VMM, e.VCPUs, cpu, e.GuestFeatures, e.Measurement)
	}
}
