package vm

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kraudcloud/kattest/measure"
	"github.com/kraudcloud/kattest/measure/stack"
)

// Shape returns what the launch digest and QEMU's line are made from.
func (v *VM) Shape() (measure.Shape, error) { return v.Config.Shape() }

// Measurement returns the launch digest that the report of this guest must hold.
func (v *VM) Measurement() (measure.Digest, error) {
	return v.Config.Measure(filepath.Join(v.Dir, StackDir), v.Stack)
}

// Shape returns what of the machine enters the launch digest.
func (c Config) Shape() (measure.Shape, error) {
	cpu, err := measure.ParseCPU(c.CPU)
	if err != nil {
		return measure.Shape{}, fmt.Errorf("%s: cpu: %w", configFile, err)
	}
	s := measure.Shape{VMM: measure.QEMU, VCPUs: c.VCPUs, CPU: cpu, GuestFeatures: measure.SNPActive}
	if err := s.Check(); err != nil {
		return measure.Shape{}, fmt.Errorf("%s: %w", configFile, err)
	}
	return s, nil
}

// Measure returns the launch digest of the boot stack in stackDir on such a
// machine. It does not check the stack's files against their manifest s.
func (c Config) Measure(stackDir string, s stack.Stack) (measure.Digest, error) {
	shape, err := c.Shape()
	if err != nil {
		return measure.Digest{}, err
	}
	image, err := os.ReadFile(filepath.Join(stackDir, stack.Firmware))
	if err != nil {
		return measure.Digest{}, err
	}
	fw, err := measure.ParseFirmware(image)
	if err != nil {
		return measure.Digest{}, fmt.Errorf("%s: %w", filepath.Join(stackDir, stack.Firmware), err)
	}
	kernel, err := os.Open(filepath.Join(stackDir, stack.Kernel))
	if err != nil {
		return measure.Digest{}, err
	}
	defer kernel.Close()
	initrd, err := os.Open(filepath.Join(stackDir, stack.Initrd))
	if err != nil {
		return measure.Digest{}, err
	}
	defer initrd.Close()
	hashes, err := measure.HashKernel(kernel, initrd, s.Cmdline)
	if err != nil {
		return measure.Digest{}, err
	}
	return measure.Measure(fw, &hashes, shape)
}
