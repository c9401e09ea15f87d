package kattest

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/measure"
)

// shapeFlags say which launches are meant.
type shapeFlags struct {
	vcpus    []int
	cpus     []string
	cpuSigs  []string
	cpuFMS   []string
	features []string
	vmm      string
}

var shapeFlagNames = []string{"vcpus", "cpu", "cpu-sig", "cpu-fms", "guest-features", "vmm"}

func (f *shapeFlags) register(flags *pflag.FlagSet) {
	flags.IntSliceVar(&f.vcpus, "vcpus", []int{1}, "numbers of vCPUs")
	flags.StringSliceVar(&f.cpus, "cpu", nil, "QEMU's CPU models, or host: this machine's processor (default EPYC-v4)")
	flags.StringSliceVar(&f.cpuSigs, "cpu-sig", nil, "CPU signatures, CPUID Fn0000_0001 EAX, as 0x800f12")
	flags.StringSliceVar(&f.cpuFMS, "cpu-fms", nil, "CPUs by FAMILY/MODEL/STEPPING, as 25/17/1")
	flags.StringSliceVar(&f.features, "guest-features", nil, "SEV_FEATURES of the VMSAs (default the VMM's, 0x1 with QEMU)")
	flags.StringVar(&f.vmm, "vmm", "qemu", "VMM as NAME[@VERSION]; 'kattest profiles' lists them")
}

// check refuses flags that contradict each other.
func (f *shapeFlags) check(flags *pflag.FlagSet) error {
	vmm, err := measure.ParseProfile(f.vmm)
	if err != nil {
		return fmt.Errorf("--vmm: %w", err)
	}
	var errs []error
	if !vmm.MeasuresCPU() {
		for _, name := range []string{"cpu", "cpu-sig", "cpu-fms"} {
			if flags.Changed(name) {
				errs = append(errs, fmt.Errorf("--%s: with %v the CPU is not measured", name, vmm))
			}
		}
	}
	return errors.Join(errs...)
}

// shapes are the combinations of CPUs, guest features and vCPUs, in the order
// given.
func (f *shapeFlags) shapes() ([]measure.Shape, error) {
	vmm, err := measure.ParseProfile(f.vmm)
	if err != nil {
		return nil, fmt.Errorf("--vmm: %w", err)
	}
	masks, err := f.masks(vmm)
	if err != nil {
		return nil, err
	}
	cpus, err := f.models(vmm)
	if err != nil {
		return nil, err
	}
	var shapes []measure.Shape
	seen := map[measure.Shape]bool{}
	for _, cpu := range cpus {
		for _, mask := range masks {
			for _, n := range f.vcpus {
				s := measure.Shape{VMM: vmm, VCPUs: n, CPU: cpu, GuestFeatures: mask}
				if err := s.Check(); err != nil {
					return nil, err
				}
				if seen[s] {
					return nil, fmt.Errorf("%d vCPUs of %v: given twice", n, cpu)
				}
				seen[s] = true
				shapes = append(shapes, s)
			}
		}
	}
	if len(shapes) == 0 {
		return nil, errors.New("--vcpus, --cpu, --cpu-sig, --cpu-fms, --guest-features: an empty list")
	}
	return shapes, nil
}

func (f *shapeFlags) masks(vmm measure.Profile) ([]uint64, error) {
	if len(f.features) == 0 {
		return []uint64{vmm.Describe().GuestFeatures}, nil
	}
	var masks []uint64
	for _, s := range f.features {
		mask, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return nil, fmt.Errorf("--guest-features: %w", err)
		}
		masks = append(masks, mask)
	}
	return masks, nil
}

func (f *shapeFlags) models(vmm measure.Profile) ([]measure.CPU, error) {
	if !vmm.MeasuresCPU() {
		return []measure.CPU{{}}, nil
	}
	var cpus []measure.CPU
	for _, s := range f.cpuSigs {
		sig, err := strconv.ParseUint(s, 0, 32)
		if err != nil {
			return nil, fmt.Errorf("--cpu-sig: %w", err)
		}
		cpus = append(cpus, measure.SignatureCPU(uint32(sig)))
	}
	for _, s := range f.cpuFMS {
		cpu, err := measure.ParseFMS(s)
		if err != nil {
			return nil, fmt.Errorf("--cpu-fms: %w", err)
		}
		cpus = append(cpus, cpu)
	}
	names := f.cpus
	if len(names) == 0 && len(cpus) == 0 {
		names = []string{"EPYC-v4"}
	}
	for _, name := range names {
		parse := measure.ParseCPU
		if name == "host" {
			parse = func(string) (measure.CPU, error) { return hostCPU("/proc/cpuinfo") }
		}
		cpu, err := parse(name)
		if err != nil {
			return nil, fmt.Errorf("--cpu: %w", err)
		}
		cpus = append(cpus, cpu)
	}
	return cpus, nil
}
