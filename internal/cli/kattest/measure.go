package kattest

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kraudcloud/kattest/internal/cli"
	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/release"
	"github.com/kraudcloud/kattest/measure/stack"
)

// measureFlags are the flags of kattest measure.
type measureFlags struct {
	firmware, kernel, initrd, cmdline, stack string

	vcpus    []int
	cpus     []string
	cpuSigs  []string
	features string
	vmm      string
	output   string

	sign, bundle string
	release, key string
}

func newMeasure() *cobra.Command {
	var f measureFlags
	cmd := &cobra.Command{
		Use:   "measure",
		Short: "Compute the launch digest of a boot stack",
		Long: `Compute the launch digest: what an AMD SEV-SNP processor puts into MEASUREMENT
when a VMM launches this firmware, kernel, initrd and command line with so many
vCPUs of that model. One digest for each combination of --vcpus and CPU.

--sign writes a release: the stack's components and the digests, signed. A key:
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out release.key
  openssl pkey -in release.key -pubout -out release.pub
The password of an encrypted key is taken from COSIGN_PASSWORD.

--release holds the stack against a release: its signature, and that these very
bytes are its components and give its digests.`,
		Example: `  kattest measure --stack DIR --vcpus 1,2,4 --cpu EPYC-v4,EPYC-Milan-v2
  kattest measure --firmware OVMF.fd --kernel vmlinuz --initrd initrd.cpio \
      --cmdline 'console=ttyS0' --output digest
  kattest measure --stack DIR --sign release.key --bundle release.json
  kattest measure --stack DIR --release release.json --key release.pub`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.stack, "stack", "", "folder of a boot stack; its files are checked against stack.json")
	flags.StringVar(&f.firmware, "firmware", "", "firmware image, as for QEMU's -bios")
	flags.StringVar(&f.kernel, "kernel", "", "kernel; without one, kernel hashes are off")
	flags.StringVar(&f.initrd, "initrd", "", "initrd")
	flags.StringVar(&f.cmdline, "cmdline", "", "kernel command line")
	flags.IntSliceVar(&f.vcpus, "vcpus", []int{1}, "numbers of vCPUs")
	flags.StringSliceVar(&f.cpus, "cpu", nil, "QEMU's CPU models (default EPYC-v4)")
	flags.StringSliceVar(&f.cpuSigs, "cpu-sig", nil, "CPU signatures, CPUID Fn0000_0001 EAX, as 0x800f12")
	flags.StringVar(&f.features, "guest-features", "0x1", "SEV_FEATURES of the VMSAs")
	flags.StringVar(&f.vmm, "vmm", "qemu", "virtual machine monitor: qemu")
	flags.StringVar(&f.output, "output", "text", "text, json or digest (the bare digests, one a line)")
	flags.StringVar(&f.sign, "sign", "", "private key (PEM) to sign a release with; needs --stack and --bundle")
	flags.StringVar(&f.bundle, "bundle", "", "file to write the release to")
	flags.StringVar(&f.release, "release", "", "release to hold the stack against; needs --stack and --key")
	flags.StringVar(&f.key, "key", "", "public key, PEM, that signed the release")
	return cmd
}

func (f measureFlags) run(cmd *cobra.Command) error {
	if err := f.check(cmd); err != nil {
		return cli.Usage(err, "see 'kattest measure --help'")
	}
	if f.release != "" {
		return f.checkRelease(cmd)
	}
	shapes, err := f.shapes()
	if err != nil {
		return cli.Usage(err, "see 'kattest measure --help'")
	}
	var key crypto.Signer
	if f.sign != "" { // before the work, of which nothing is lost then
		if key, err = readSigner(f.sign); err != nil {
			return cli.Usage(err, "make a key: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY")
		}
	}
	in, err := f.read()
	if err != nil {
		return cli.Usage(err, "")
	}
	m, err := in.measure(shapes)
	if err != nil {
		return cli.Usage(err, "")
	}
	if in.hashes == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "kattest: warning: no --kernel: kernel hashes are off, the digests say nothing about kernel, initrd and command line")
	}
	if key != nil {
		if err := in.publish(cmd.Context(), m, key, f.bundle); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "release of %d digests written to %s\n", len(m.Table), f.bundle)
	}
	return m.write(cmd.OutOrStdout(), f.output)
}

// checkRelease holds the stack against a release, whose table is the answer.
func (f measureFlags) checkRelease(cmd *cobra.Command) error {
	r, err := openRelease(f.release, f.key)
	if err != nil {
		return err
	}
	in, err := f.read()
	if err != nil {
		return cli.Usage(err, "")
	}
	if err := in.compare(r); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "release %s: signed by %s, and the stack gives its %d digests\n", f.release, f.key, len(r.Table))
	m := measurements{MediaType: measurementMediaType, KernelHashes: true, Table: r.Table}
	return m.write(cmd.OutOrStdout(), f.output)
}

// check refuses flags that contradict each other.
func (f measureFlags) check(cmd *cobra.Command) error {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if given("stack") {
		for _, name := range []string{"firmware", "kernel", "initrd", "cmdline"} {
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
	if given("cpu") && given("cpu-sig") {
		bad("--cpu and --cpu-sig: want one of them")
	}
	if given("sign") != given("bundle") {
		bad("--sign and --bundle go together")
	}
	if given("sign") && !given("stack") {
		bad("--sign needs --stack, which names the components and the lock")
	}
	if given("release") != given("key") {
		bad("--release and --key go together: a release without its publisher's key proves nothing")
	}
	if given("release") {
		if !given("stack") {
			bad("--release needs --stack, which is held against it")
		}
		for _, name := range []string{"vcpus", "cpu", "cpu-sig", "guest-features", "vmm", "sign"} {
			if given(name) {
				bad("--release and --%s: the release names its own", name)
			}
		}
	}
	switch f.output {
	case "text", "json", "digest":
	default:
		bad("--output: unknown form %q, want text, json or digest", f.output)
	}
	return errors.Join(errs...)
}

// shapes are the combinations of vCPUs and CPUs, in the order given.
func (f measureFlags) shapes() ([]measure.Shape, error) {
	vmm, err := measure.ParseProfile(f.vmm)
	if err != nil {
		return nil, fmt.Errorf("--vmm: %w", err)
	}
	features, err := strconv.ParseUint(f.features, 0, 64)
	if err != nil {
		return nil, fmt.Errorf("--guest-features: %w", err)
	}
	cpus, err := f.models()
	if err != nil {
		return nil, err
	}
	var shapes []measure.Shape
	seen := map[measure.Shape]bool{}
	for _, cpu := range cpus {
		for _, n := range f.vcpus {
			s := measure.Shape{VMM: vmm, VCPUs: n, CPU: cpu, GuestFeatures: features}
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
	if len(shapes) == 0 {
		return nil, errors.New("--vcpus, --cpu, --cpu-sig: an empty list")
	}
	return shapes, nil
}

func (f measureFlags) models() ([]measure.CPU, error) {
	var cpus []measure.CPU
	for _, s := range f.cpuSigs {
		sig, err := strconv.ParseUint(s, 0, 32)
		if err != nil {
			return nil, fmt.Errorf("--cpu-sig: %w", err)
		}
		cpus = append(cpus, measure.SignatureCPU(uint32(sig)))
	}
	names := f.cpus
	if len(names) == 0 && len(cpus) == 0 {
		names = []string{"EPYC-v4"}
	}
	for _, name := range names {
		cpu, err := measure.ParseCPU(name)
		if err != nil {
			return nil, fmt.Errorf("--cpu: %w", err)
		}
		cpus = append(cpus, cpu)
	}
	return cpus, nil
}

// inputs is what is measured.
type inputs struct {
	firmware *measure.Firmware
	hashes   *measure.KernelHashes // nil: kernel hashes are off
	stack    stack.Stack           // empty without --stack
	cmdline  string
}

func (f measureFlags) read() (inputs, error) {
	in := inputs{cmdline: f.cmdline}
	if f.stack != "" {
		var err error
		if in.stack, err = stack.Load(f.stack); err != nil {
			return inputs{}, err
		}
		in.cmdline = in.stack.Cmdline
		f.firmware = filepath.Join(f.stack, stack.Firmware)
		f.kernel = filepath.Join(f.stack, stack.Kernel)
		f.initrd = filepath.Join(f.stack, stack.Initrd)
	}
	image, err := readLimited(f.firmware, measure.MaxFirmware)
	if err != nil {
		return inputs{}, err
	}
	if in.firmware, err = measure.ParseFirmware(image); err != nil {
		return inputs{}, fmt.Errorf("%s: %w", f.firmware, err)
	}
	if f.kernel != "" {
		in.hashes, err = hashKernel(f.kernel, f.initrd, in.cmdline)
	}
	return in, err
}

func hashKernel(kernel, initrd, cmdline string) (*measure.KernelHashes, error) {
	k, err := os.Open(kernel)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	var i io.Reader
	if initrd != "" {
		f, err := os.Open(initrd)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		i = f
	}
	h, err := measure.HashKernel(k, i, cmdline)
	if err != nil {
		return nil, err
	}
	return &h, nil
}

func (in inputs) measure(shapes []measure.Shape) (measurements, error) {
	m := measurements{MediaType: measurementMediaType, KernelHashes: in.hashes != nil}
	for _, s := range shapes {
		d, err := measure.Measure(in.firmware, in.hashes, s)
		if err != nil {
			return measurements{}, err
		}
		m.Table = append(m.Table, release.NewEntry(s, d))
	}
	return m, nil
}

func readSigner(name string) (crypto.Signer, error) {
	pem, err := readLimited(name, 1<<20)
	if err != nil {
		return nil, err
	}
	key, err := release.ParsePrivateKey(pem, func() ([]byte, error) {
		password, ok := os.LookupEnv("COSIGN_PASSWORD")
		if !ok {
			return nil, errors.New("the key is encrypted and COSIGN_PASSWORD is not set")
		}
		return []byte(password), nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// publish signs the release and writes it to file, which is either whole or not there.
func (in inputs) publish(ctx context.Context, m measurements, key crypto.Signer, file string) error {
	r := release.Release{Cmdline: in.cmdline, Lock: in.stack.Lock, Policy: release.DefaultPolicy(), Table: m.Table}
	for _, f := range in.stack.Files {
		sum, err := measure.ParseHash(f.SHA256)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		r.Components = append(r.Components, release.Component{Name: f.Name, Size: f.Size, SHA256: sum})
	}
	b, err := release.Sign(ctx, r, key)
	if err != nil {
		return err
	}
	return writeAtomic(file, b)
}
