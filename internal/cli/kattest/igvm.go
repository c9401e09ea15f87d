package kattest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/igvm"
	"github.com/kraudcloud/kattest/measure/transcript"
)

const igvmMediaType = "application/vnd.kattest.igvm-measurement.v1+json"

// igvmFlags name an IGVM file, and who loads it.
type igvmFlags struct {
	igvm, loader string
}

func (f *igvmFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.igvm, "igvm", "", "IGVM file, in place of firmware and kernel")
	flags.StringVar(&f.loader, "loader", "qemu", "who loads the IGVM file: qemu; or which tool's digest is wanted, igvmmeasure or openvmm")
}

// igvmTakes are the flags that say something of an IGVM file's launch.
var igvmTakes = []string{"igvm", "loader", "vcpus", "cpu", "cpu-sig", "cpu-fms", "output", "transcript"}

// checkIGVM refuses flags that contradict --igvm.
func (f measureFlags) checkIGVM(flags *pflag.FlagSet) error {
	var errs []error
	flags.Visit(func(given *pflag.Flag) {
		if !slices.Contains(igvmTakes, given.Name) {
			errs = append(errs, fmt.Errorf("--igvm and --%s contradict each other: the file has the guest whole", given.Name))
		}
	})
	l, err := igvm.ParseLoader(f.loader)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("--loader: %w", err))
	case l != igvm.QEMU:
		for _, name := range []string{"cpu", "cpu-sig", "cpu-fms", "transcript"} {
			if flags.Changed(name) {
				errs = append(errs, fmt.Errorf("--%s: with QEMU alone, not with %v", name, l))
			}
		}
	}
	return errors.Join(append(errs, f.checkOutput(flags))...)
}

// igvmMeasurements is the answer of kattest measure --igvm; docs/igvm.md has its
// JSON.
type igvmMeasurements struct {
	MediaType string            `json:"mediaType"`
	Loader    igvm.Loader       `json:"loader"`
	Policy    *uint64           `json:"policy"`  // null: the host's
	IDBlock   bool              `json:"idBlock"` // whether the file has one
	Table     []igvmMeasurement `json:"table"`
}

// igvmMeasurement is one launch and its digest.
type igvmMeasurement struct {
	VCPUs         int            `json:"vcpus"`
	CPU           string         `json:"cpu,omitempty"`
	CPUSignature  uint32         `json:"cpuSignature"`  // 0: the CPU is not measured
	GuestFeatures uint64         `json:"guestFeatures"` // 0: each vCPU's own
	Measurement   measure.Digest `json:"measurement"`
}

// runIGVM measures an IGVM file.
func (f measureFlags) runIGVM(cmd *cobra.Command) error {
	l, err := igvm.ParseLoader(f.loader)
	if err != nil {
		return cli.Usage(fmt.Errorf("--loader: %w", err), "")
	}
	file, err := openIGVM(f.igvm)
	if err != nil {
		return cli.Usage(err, "")
	}
	image, err := file.Load(l)
	if err != nil {
		return cli.Usage(fmt.Errorf("%s: %w", f.igvm, err), "")
	}
	vcpus := f.vcpus
	if !cmd.Flags().Changed("vcpus") { // those of which the file has the state
		vcpus = []int{image.VCPUs()}
		if l == igvm.QEMU {
			vcpus[0] = max(1, vcpus[0])
		}
	}
	table, err := f.igvmTable(cmd.Flags(), image, vcpus)
	if err != nil {
		return cli.Usage(fmt.Errorf("%s: %w", f.igvm, err), "see 'kattest measure --help'")
	}
	f.warnIGVM(cmd.ErrOrStderr(), file, image)
	m := igvmMeasurements{MediaType: igvmMediaType, Loader: l, IDBlock: file.IDBlock() != nil, Table: table}
	if policy, ok := file.Policy(); ok {
		m.Policy = &policy
	}
	if f.transcript {
		err = f.writeIGVMTranscript(cmd.OutOrStdout(), image, table)
	} else {
		err = m.write(cmd.OutOrStdout(), f.output)
	}
	if err != nil {
		return err
	}
	return checkIDBlock(file, table)
}

// openIGVM reads an IGVM file; an error has its name.
func openIGVM(name string) (*igvm.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	file, err := igvm.Open(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return file, nil
}

// igvmTable measures each number of vCPUs, with each CPU where that makes a
// difference.
func (f measureFlags) igvmTable(flags *pflag.FlagSet, image *igvm.Image, vcpus []int) ([]igvmMeasurement, error) {
	models, err := f.models(measure.QEMU)
	if err != nil {
		return nil, err
	}
	var table []igvmMeasurement
	counts := false // the CPU, for any number of vCPUs
	for _, n := range vcpus {
		cpus := []measure.CPU{{}}
		if image.MeasuresCPU(n) {
			cpus, counts = models, true
		}
		for _, cpu := range cpus {
			d, err := image.Measure(n, cpu)
			if err != nil {
				return nil, err
			}
			table = append(table, igvmMeasurement{n, cpu.Name, cpu.Signature, image.GuestFeatures(), d})
		}
	}
	for _, name := range []string{"cpu", "cpu-sig", "cpu-fms"} {
		if flags.Changed(name) && !counts {
			return nil, fmt.Errorf("--%s: the file has the state of every vCPU, and the CPU is not measured", name)
		}
	}
	if len(table) == 0 {
		return nil, errors.New("--vcpus: an empty list")
	}
	return table, nil
}

// warnIGVM says what the file's user may not expect.
func (f measureFlags) warnIGVM(w io.Writer, file *igvm.File, image *igvm.Image) {
	if _, ok := file.Policy(); !ok {
		fmt.Fprintf(w, "kattest: warning: %s: no guest policy: it is the host's, which may permit debugging\n", f.igvm)
	}
	for _, change := range image.Changes() {
		fmt.Fprintf(w, "kattest: warning: %s: %s, as QEMU and KVM start it\n", f.igvm, change)
	}
}

// checkIDBlock holds each launch against the file's ID block: the firmware
// refuses those that are not the block's.
func checkIDBlock(file *igvm.File, table []igvmMeasurement) error {
	var errs []error
	for _, m := range table {
		if err := file.Check(m.Measurement); err != nil {
			errs = append(errs, fmt.Errorf("%d vCPUs of %s: %w", m.VCPUs, m.model(), err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return &cli.Error{Code: cli.ExitMismatch, Err: err, Hint: "the firmware refuses these launches; an ID block is for one number of vCPUs"}
	}
	return nil
}

func (f measureFlags) writeIGVMTranscript(w io.Writer, image *igvm.Image, table []igvmMeasurement) error {
	if len(table) != 1 {
		return cli.Usage(fmt.Errorf("--transcript: %d launches, want one", len(table)), "")
	}
	m := table[0]
	cpu := measure.CPU{Name: m.CPU, Signature: m.CPUSignature}
	steps, err := image.Steps(m.VCPUs, cpu)
	if err != nil {
		return cli.Usage(err, "")
	}
	t := transcript.Of(steps, nil, measure.Shape{VMM: measure.QEMU, VCPUs: m.VCPUs, CPU: cpu, GuestFeatures: m.GuestFeatures})
	if f.output == "text" {
		return writeSteps(w, t)
	}
	b, err := t.Encode()
	if err != nil { // more steps than a transcript may have
		return cli.Usage(fmt.Errorf("--transcript: %w", err), "--output text has no bound")
	}
	_, err = w.Write(b)
	return err
}

// model is the CPU, where it counts.
func (m igvmMeasurement) model() string {
	if m.CPUSignature == 0 {
		return "any"
	}
	return measure.CPU{Name: m.CPU, Signature: m.CPUSignature}.String()
}

func (m igvmMeasurements) write(w io.Writer, output string) error {
	digests := make([]digest, len(m.Table))
	for i, e := range m.Table {
		digests[i] = e.Measurement
	}
	return writeMeasured(w, output, m, digests, m.rows)
}

func (m igvmMeasurements) rows(tw io.Writer) {
	fmt.Fprintln(tw, "LOADER\tVCPUS\tCPU\tFEATURES\tMEASUREMENT")
	for _, e := range m.Table {
		features := "as in the file"
		if e.GuestFeatures != 0 {
			features = fmt.Sprintf("%#x", e.GuestFeatures)
		}
		fmt.Fprintf(tw, "%v\t%d\t%s\t%s\t%v\n", m.Loader, e.VCPUs, e.model(), features, e.Measurement)
	}
}
