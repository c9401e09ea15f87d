package kattest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/spf13/pflag"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
)

// inputFlags name the bytes that are launched.
type inputFlags struct {
	firmware, kernel, initrd, cmdline string
	stack                             string
	svsm                              string
	vars                              int64
}

func (f *inputFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.stack, "stack", "", "folder of a boot stack; its files are checked against stack.json")
	flags.StringVar(&f.firmware, "firmware", "", "firmware image, as for QEMU's -bios")
	flags.StringVar(&f.kernel, "kernel", "", "kernel; without one, kernel hashes are off")
	flags.StringVar(&f.initrd, "initrd", "", "initrd")
	flags.StringVar(&f.cmdline, "cmdline", "", "kernel command line")
	flags.StringVar(&f.svsm, "svsm", "", "image of a Coconut SVSM, with --vmm svsm")
	flags.Int64Var(&f.vars, "vars-size", 0, "size of the firmware's variable store in bytes, below which the SVSM ends")
}

// check refuses flags that contradict each other.
func (f *inputFlags) check(flags *pflag.FlagSet) error {
	given := flags.Changed
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if given("stack") {
		for _, name := range []string{"firmware", "kernel", "initrd", "cmdline", "svsm"} {
			if given(name) {
				bad("--stack and --%s: the stack names its own", name)
			}
		}
	} else if !given("firmware") {
		bad("neither --stack nor --firmware")
	}
	for _, name := range []string{"initrd", "cmdline"} {
		if given(name) && !given("kernel") && !given("stack") {
			bad("--%s without --kernel: it would not be measured", name)
		}
	}
	if given("svsm") != given("vars-size") {
		bad("--svsm and --vars-size go together")
	}
	if given("svsm") && given("kernel") {
		bad("--svsm and --kernel: an SVSM's launch has no kernel hashes")
	}
	return errors.Join(errs...)
}

// inputs is what is measured.
type inputs struct {
	firmware *measure.Firmware
	image    []byte                // the firmware's, for SEV and SEV-ES alone
	sum      measure.Hash          // the firmware's SHA-256; zero where it is not known
	hashes   *measure.KernelHashes // nil: kernel hashes are off
	stack    stack.Stack           // empty without --stack
	claim    release.Enforcement   // a release's, where that is all there is
}

// read reads each file once: the initrd beside the others, as it is the largest.
func (f inputFlags) read(vmm measure.Profile) (inputs, error) {
	if f.stack != "" {
		return readStack(f.stack, vmm)
	}
	var initrd measure.Hash
	var initrdErr error
	var wg sync.WaitGroup
	wg.Go(func() { initrd, initrdErr = hashFile(f.initrd) })
	in, err := f.readFirmware(vmm)
	var kernel measure.Hash
	if err == nil && f.kernel != "" {
		kernel, err = hashFile(f.kernel)
	}
	wg.Wait()
	if err := errors.Join(err, initrdErr); err != nil {
		return inputs{}, err
	}
	if f.kernel != "" {
		hashes, err := measure.NewKernelHashes(kernel, initrd, f.cmdline)
		if err != nil {
			return inputs{}, err
		}
		in.hashes = &hashes
	}
	return in, nil
}

func readStack(dir string, vmm measure.Profile) (inputs, error) {
	if vmm.Describe().Technology != measure.TechnologySNP {
		return inputs{}, fmt.Errorf("--vmm %v: a boot stack is for SEV-SNP; give --firmware", vmm)
	}
	s, fw, err := stack.LoadFirmware(dir)
	if err != nil {
		return inputs{}, err
	}
	hashes, err := s.KernelHashes()
	if err != nil {
		return inputs{}, err
	}
	f, _ := s.File(stack.Firmware)
	sum, err := measure.ParseHash(f.SHA256)
	if err != nil {
		return inputs{}, err
	}
	return inputs{firmware: fw, sum: sum, hashes: &hashes, stack: s}, nil
}

func (f inputFlags) readFirmware(vmm measure.Profile) (inputs, error) {
	image, err := cli.ReadFile(f.firmware, measure.MaxFirmware)
	if err != nil {
		return inputs{}, err
	}
	in := inputs{sum: sha256.Sum256(image)}
	switch {
	case f.svsm != "":
		var svsm []byte
		if svsm, err = cli.ReadFile(f.svsm, measure.MaxFirmware); err != nil {
			return inputs{}, err
		}
		in.firmware, err = measure.ParseSVSM(image, svsm, f.vars)
	case vmm.Describe().Technology == measure.TechnologySNP:
		in.firmware, err = measure.ParseFirmware(image)
	default:
		in.image = image
	}
	if err != nil {
		return inputs{}, fmt.Errorf("%s: %w", f.firmware, err)
	}
	return in, nil
}

// hashFile returns the SHA-256 of a file, or of nothing where it has no name.
func hashFile(name string) (measure.Hash, error) {
	if name == "" {
		return measure.NoInitrd(), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return measure.Hash{}, err
	}
	defer f.Close()
	return measure.HashOf(f)
}

// measure returns the digests of the shapes.
func (in inputs) measure(shapes []measure.Shape) (measurements, error) {
	m := measurements{MediaType: measurementMediaType, KernelHashes: in.hashes != nil, Table: make([]measurement, 0, len(shapes))}
	if in.image != nil {
		for _, s := range shapes {
			d, err := measure.SEV(in.image, in.hashes, s)
			if err != nil {
				return measurements{}, err
			}
			m.add(s, d)
		}
		return m, nil
	}
	digests, err := measure.Matrix(in.firmware, in.hashes, shapes)
	if err != nil {
		return measurements{}, err
	}
	for i, d := range digests {
		m.add(shapes[i], d)
	}
	return m, nil
}
