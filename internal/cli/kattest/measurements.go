package kattest

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/kraudcloud/kattest/measure/release"
)

const measurementMediaType = "application/vnd.kattest.measurement.v1+json"

// measurements is the answer of kattest measure; docs/measurement.md has its JSON.
type measurements struct {
	MediaType    string          `json:"mediaType"`
	KernelHashes bool            `json:"kernelHashes"`
	Table        []release.Entry `json:"table"`
}

func (m measurements) write(w io.Writer, output string) error {
	switch output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(m)
	case "digest":
		for _, e := range m.Table {
			if _, err := fmt.Fprintln(w, e.Measurement); err != nil {
				return err
			}
		}
		return nil
	default:
		return m.writeText(w)
	}
}

func (m measurements) writeText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "VMM\tVCPUS\tCPU\tFEATURES\tMEASUREMENT")
	for _, e := range m.Table {
		fmt.Fprintf(tw, "%v\t%d\t%v\t%#x\t%v\n", e.VMM, e.VCPUs, e.Shape().CPU, e.GuestFeatures, e.Measurement)
	}
	return tw.Flush()
}
